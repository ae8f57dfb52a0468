"""Settle: the ways on from running, and that each is gone once."""

from tests.engine.harness import Driver
from tq.core.lifecycle import TaskState
from tq.engine import commands as c


def test_a_task_that_dies_with_its_worker_is_durably_dead_before_anybody_hears_of_it() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(max_losses=1)
    for name in ("w1", "w2"):
        worker = driver.worker(name)
        (held,) = driver.take(worker)
        driver.start(worker, held)
        driver.do(c.Wait(7, [task_id]))
        driver.now += driver.settings.lease_ms
        driver.do(c.Tick())

    assert driver.state(task_id) == "dead"
    driver.do(c.Tick())
    (ending,) = driver.endings
    assert (ending.waiters, ending.result.state) == (frozenset({7}), TaskState.DEAD)
