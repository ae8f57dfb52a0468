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


def test_a_task_whose_workers_die_before_they_can_say_that_it_started_is_handed_out_alone() -> None:
    driver = Driver()
    poison, innocent = driver.enqueue(2, max_losses=2)
    for name in ("w1", "w2"):
        driver.take(driver.worker(name))
        driver.die(name.encode().ljust(16, b"_"))

    worker = driver.worker("w3")
    (held,) = driver.take(worker)
    assert (held.id, held.alone, held.record.losses) == (poison, True, 0)
    driver.start(worker, held)
    driver.die(worker)
    worker = driver.worker("w4")
    (held,) = driver.take(worker)
    driver.start(worker, held)
    driver.complete(worker, held)
    (other,) = driver.take(worker)

    assert {held.id, other.id} == {poison, innocent}
    assert {each.id: (each.alone, each.record.losses) for each in (held, other)} == {
        poison: (True, 1),
        innocent: (True, 0),
    }


def test_what_waited_where_one_worker_died_is_handed_out_as_ever() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    driver.take(driver.worker("w1"))
    driver.die(b"w1".ljust(16, b"_"))

    held = driver.take(driver.worker("w2"))

    assert [each.id for each in held] == ids
    assert not any(each.alone for each in held)
