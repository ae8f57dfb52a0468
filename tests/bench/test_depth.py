"""Tests of bench.depth: its shapes, its budget, and measurements of a few tasks with the real programs."""

from collections import Counter
from itertools import islice

import msgspec
import pytest

from bench.depth.__main__ import document
from bench.depth.budget import below_bound, verdicts
from bench.depth.measure import Depth, measure
from bench.depth.shapes import SHAPES
from bench.systems.loads import FRAME_TASKS

DEEP = Depth(
    shape="1 queue",
    holds="queue",
    tasks=10_000_000,
    enqueue_empty=100_000,
    enqueue_deep=95_000,
    drain_empty=80_000,
    drain_deep=76_000,
    rss_empty_mib=90,
    rss_deep_mib=200,
    rss_peak_mib=300,
    restart_empty_s=0.4,
    restart_deep_s=1.5,
    restore_s=0.1,
    disk_deep_mib=2_000,
    disk_left_mib=100,
    reclaimed_s=20,
)


def test_a_shape_spreads_its_tasks_evenly_over_queues_and_priorities() -> None:
    over_queues = Counter(task.spec.queue for task in SHAPES["hundred"].tasks(200 * FRAME_TASKS))
    over_priorities = Counter(task.spec.priority for task in SHAPES["priorities"].tasks(256 * FRAME_TASKS))

    assert over_queues == {f"q{number}": 2 * FRAME_TASKS for number in range(100)}
    assert over_priorities == dict.fromkeys(range(256), FRAME_TASKS)


@pytest.mark.parametrize(("name", "ways"), [("hundred", 100), ("many", FRAME_TASKS), ("priorities", 256)])
def test_a_frame_has_as_many_queues_and_priorities_as_it_can(name: str, ways: int) -> None:
    enqueued, filled = SHAPES[name].tasks(FRAME_TASKS), SHAPES[name].filling(100_000, 20_000)

    for frame in (enqueued, islice(filled, FRAME_TASKS), islice(filled, 19_000, 19_000 + FRAME_TASKS)):
        assert len({(task.spec.queue, task.spec.priority) for task in frame}) == ways


def test_what_fills_a_broker_is_even_and_comes_in_runs_after_what_is_drained() -> None:
    tasks = list(SHAPES["hundred"].filling(200_000, 50_100))

    queues = [task.spec.queue for task in tasks]
    assert set(Counter(queues).values()) == {2_000}
    assert len(set(queues[50_000:50_100])) == 100
    assert len(set(queues[50_100:50_600])) == 1


def test_depth_is_judged_by_the_peak_the_slower_rate_and_the_restart() -> None:
    worse = msgspec.structs.replace(DEEP, drain_deep=70_000, rss_peak_mib=700, restart_deep_s=4)
    worst = msgspec.structs.replace(DEEP, enqueue_deep=69_000, rss_peak_mib=800, restart_deep_s=6)

    assert verdicts(DEEP) == ["on target"] * 3
    assert verdicts(worse) == ["done"] * 3
    assert verdicts(worst) == ["below the bound"] * 3
    assert below_bound([DEEP, worse, worst]) == ["memory of 1 queue", "rates of 1 queue", "restart of 1 queue"]
    assert below_bound([msgspec.structs.replace(worst, holds="retry")]) == []


@pytest.mark.parametrize("name", ["priorities", "retries", "results"])
async def test_each_kind_of_shape_is_measured_and_written_down(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.depth.measure.KEPT_S", 1.0)
    monkeypatch.setattr("bench.depth.shapes.KEPT_S", 1.0)
    shape = SHAPES[name]

    found = await measure(shape, 2_000, 1_000, reclaim_s_max=10.0)

    assert found.tasks == 2_000
    assert min(found.enqueue_empty, found.enqueue_deep, found.drain_empty, found.drain_deep) > 0
    assert 0 < found.restore_s < found.restart_deep_s
    assert found.rss_peak_mib >= found.rss_deep_mib > 0 < found.disk_deep_mib
    assert found.reclaimed_s is not None
    assert f"| {shape.title} | 2,000 |" in document([found], ["a machine"])
