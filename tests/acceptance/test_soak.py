"""Seconds of `make soak`: broker and workers are killed and connections cut, and each task ends once, as it must."""

from pathlib import Path

import pytest

from bench.soak import load
from bench.soak.load import Broken
from bench.soak.run import Plan, Soak
from tq.core.lifecycle import TaskState


def test_every_task_of_a_short_soak_ends_once_as_it_must(tmp_path: Path) -> None:
    soak = Soak(
        tmp_path, Plan(tasks=20_000, broker_every_s=3.0, worker_every_s=1.0, cut_every_s=0.7, sample_every_s=0.5)
    )
    told: list[int] = []

    soak.run(told.append)

    assert soak.accidents > 0 < soak.broker_kills
    assert told[-1] == 20_000
    assert (tmp_path / "samples.jsonl").read_bytes().count(b"\n") == len(soak.samples) > 0


def test_a_task_that_ends_otherwise_than_it_must_ends_the_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "end_of", lambda number: TaskState.COMPLETED)
    soak = Soak(tmp_path, Plan(tasks=2_000))

    with pytest.raises(Broken, match=r"of number \d*[05]?[01] ended as"):
        soak.run(lambda ended: None)
