"""Purge: what it drops, and what it leaves to the workers that hold it."""

from collections.abc import Callable

import pytest

from tests.engine.harness import Driver, Held
from tq.core.lifecycle import TaskState
from tq.engine import commands as c, rows as r


def waiting(driver: Driver) -> bytes:
    (task_id,) = driver.enqueue()
    return task_id


def retried_later(driver: Driver) -> bytes:
    (task_id,) = driver.enqueue()
    worker = driver.worker(window=1)
    driver.fail(worker, *driver.take(worker), retry_after_ms=5_000)
    driver.leave(worker)
    return task_id


@pytest.mark.parametrize("begin", [waiting, retried_later])
def test_who_waits_for_what_is_dropped_is_told_in_the_batch_that_deletes_its_rows(
    begin: Callable[[Driver], bytes],
) -> None:
    driver = Driver()
    task_id = begin(driver)
    driver.do(c.Wait(5, [task_id]))
    driver.do(c.PurgeQueue("q"))

    while not driver.endings:
        assert driver.rows.get(r.TASK + task_id) is not None
        driver.do(c.Tick())

    assert [(each.result.id, each.result.state) for each in driver.endings] == [(task_id, TaskState.CANCELLED)]
    assert driver.rows.get(r.TASK + task_id) is None
    assert (driver.rows.of(r.READY), driver.rows.of(r.DUE)) == ({}, {})


def complete(driver: Driver, worker: bytes, held: Held) -> None:
    driver.complete(worker, held, result=b"r")


def fail(driver: Driver, worker: bytes, held: Held) -> None:
    driver.fail(worker, held, retry_after_ms=1_000)


def reject(driver: Driver, worker: bytes, held: Held) -> None:
    driver.fail(worker, held, reject=True)


def release(driver: Driver, worker: bytes, held: Held) -> None:
    driver.release(worker, held)


def lose(driver: Driver, worker: bytes, held: Held) -> None:
    driver.start(worker, held)
    driver.die(worker)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(complete, "completed"), (fail, "scheduled"), (reject, "dead"), (release, "unknown"), (lose, "unknown")],
)
def test_what_is_held_at_a_purge_may_have_an_outcome_and_is_gone_without_one(
    outcome: Callable[[Driver, bytes, Held], None], state: str
) -> None:
    driver = Driver()
    worker = driver.worker(window=1)
    (task_id,) = driver.enqueue()
    (held,) = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.do(c.Wait(5, [task_id]))
    assert driver.do(c.PurgeQueue("q")) == 0
    driver.tick()
    assert driver.state(task_id) == "running"

    outcome(driver, worker, held)
    driver.tick()

    assert driver.state(task_id) == state
    told = [ending.result.state.value for ending in driver.endings]
    assert told == {"unknown": ["cancelled"], "scheduled": []}.get(state, [state])


def test_a_retry_after_a_purge_is_of_the_queue_as_it_is_then() -> None:
    driver = Driver()
    worker = driver.worker(window=1)
    (task_id,) = driver.enqueue()
    (held,) = driver.take(worker)
    driver.do(c.PurgeQueue("q"))
    driver.fail(worker, held)
    driver.tick()
    (again,) = driver.take(worker)
    assert (again.id, again.record.attempts) == (task_id, 1)

    driver.release(worker, again)  # to its new line, which was not purged
    (again,) = driver.take(worker)
    driver.fail(worker, again, retry_after_ms=1_000)

    assert driver.do(c.PurgeQueue("q")) == 1
    assert driver.state(task_id) == "unknown"
    driver.tick(1_000)
    assert driver.take(worker) == []


def test_a_suspect_that_is_lost_for_the_last_time_is_dead_although_its_queue_was_purged() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(max_losses=2)
    for name in ("w1", "w2"):
        worker = driver.worker(name, window=1)
        (held,) = driver.take(worker)
        driver.start(worker, held)
        if name == "w2":
            driver.do(c.PurgeQueue("q"))
        driver.die(worker)

    assert driver.state(task_id) == "dead"
