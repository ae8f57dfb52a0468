"""Tests of bench.depth: its shapes, and a measurement of a few tasks with the real programs."""

from collections import Counter

from bench.depth.__main__ import document
from bench.depth.measure import measure
from bench.depth.shapes import SHAPES
from bench.systems.loads import FRAME_TASKS


def test_a_shape_spreads_its_tasks_evenly_over_queues_and_priorities() -> None:
    over_queues = Counter(task.spec.queue for task in SHAPES["hundred"].tasks(200 * FRAME_TASKS))
    over_priorities = Counter(task.spec.priority for task in SHAPES["priorities"].tasks(256 * FRAME_TASKS))

    assert over_queues == {f"q{number}": 2 * FRAME_TASKS for number in range(100)}
    assert over_priorities == dict.fromkeys(range(256), FRAME_TASKS)


async def test_what_waits_for_a_retry_is_measured_and_written_down() -> None:
    found = await measure(SHAPES["retries"], 2_000, 3_000, reclaim_s_max=0.0)

    assert found.tasks == 2_000
    assert min(found.enqueue_empty, found.enqueue_deep, found.drain_empty, found.drain_deep) > 0
    assert 0 < found.restore_s < found.restart_deep_s
    assert found.rss_deep_mib > 0 < found.disk_deep_mib
    assert "| waiting retries | 2,000 |" in document([found], ["a machine"])
