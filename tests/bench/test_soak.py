"""The verdict over a soak: what is steady passes, and each thing that grows is found."""

import threading
from pathlib import Path

import msgspec
import pytest

from bench.soak.handlers import RESULT_S, declared
from bench.soak.load import Broken, Probed, Probes, may_be_forgotten
from bench.soak.run import Plan, Soak
from bench.soak.verdict import MIB, Sample, judge
from tq import App

STEADY = [
    # Memory is a saw: a buffer fills, and is written away.
    Sample(
        at_s=5.0 * number,
        tasks=1_000 * number,
        accidents=number // 4,
        rss=(80 + 10 * (number % 6)) * MIB,
        handles=27 + number % 3,
        disk=(200 + 60 * (number % 5)) * MIB,
        wal=60 * (number % 5) * MIB,
        log=20_000 + 900 * (number // 4),
        latency_ms=None if number % 7 == 0 else 10.0 + number % 4,
    )
    for number in range(100)
]


def failing(samples: list[Sample]) -> list[str]:
    return [finding.name for finding in judge(samples) if not finding.holds]


def test_what_is_steady_passes() -> None:
    assert failing(STEADY) == []


@pytest.mark.parametrize(
    ("field", "by", "name"),
    [
        ("rss", 0.5 * MIB, "memory, peak"),
        ("handles", 1, "handles"),
        ("disk", 10 * MIB, "disk"),
        ("wal", 8 * MIB, "store's log"),
        ("log", 20_000, "broker's log"),
    ],
)
def test_what_grows_with_each_sample_is_found(field: str, by: float, name: str) -> None:
    growing = [
        msgspec.structs.replace(sample, **{field: getattr(sample, field) + int(by * number)})
        for number, sample in enumerate(STEADY)
    ]

    assert failing(growing) == [name]


def test_a_latency_that_has_become_worse_is_found() -> None:
    worse = [
        msgspec.structs.replace(sample, latency_ms=sample.latency_ms and sample.latency_ms * (1 + sample.at_s / 500))
        for sample in STEADY
    ]

    assert failing(worse) == ["latency, median"]


@pytest.mark.parametrize("at", [0, 30, 99])
def test_a_probe_that_failed_is_found_whenever_it_did(at: int) -> None:
    samples = list(STEADY)
    samples[at] = msgspec.structs.replace(samples[at], probes_failed=1)

    assert failing(samples) == ["probes failed"]


def test_probes_that_do_not_come_back_are_counted_once() -> None:
    with App("memory:") as without_a_worker:
        probes = Probes(declared(without_a_worker), patience_s=0)
        probes.send()
        probes.send()

        assert probes.take() == Probed(None, 2)
        assert probes.take() == Probed(None, 0)


def test_only_what_is_completed_and_long_unseen_may_be_forgotten() -> None:
    dead, completed = 0, 7

    assert may_be_forgotten(completed, RESULT_S)
    assert not may_be_forgotten(completed, RESULT_S - 0.1)
    assert not may_be_forgotten(dead, 10 * RESULT_S)


def work(door: threading.Event) -> None:
    door.wait(20)


def test_a_thread_that_does_not_end_is_a_failure_of_the_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.soak.run._SETTLE_S_MAX", 0.01)
    soak, door = Soak(tmp_path, Plan(tasks=1)), threading.Event()

    with soak._beside("accidents", lambda: work(door)):
        pass
    door.set()

    (failure,) = soak._failures
    assert isinstance(failure, Broken)
    assert "the thread of the accidents has not ended" in str(failure)


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least 8 samples; got 7"):
        judge(STEADY[:7])
