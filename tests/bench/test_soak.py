"""The verdict over a soak: what is steady passes, and each thing that grows is found."""

import msgspec
import pytest

from bench.soak.verdict import MIB, Sample, judge

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


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least 8 samples; got 7"):
        judge(STEADY[:7])
