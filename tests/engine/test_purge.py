"""Purge: what it drops, and what it leaves to the workers that hold it."""

from collections.abc import Callable

import pytest

from tests.engine.harness import Driver
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
