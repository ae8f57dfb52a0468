"""Restore: what a restart finds again, and what it costs."""

import pytest

from tests.engine.harness import Driver
from tq.engine import flows
from tq.engine.commands import Beat


def test_tasks_given_back_after_a_restart_are_handed_out_once() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker()
    driver.take(worker)

    driver.restart()
    driver.worker()

    assert [held.id for held in driver.take(worker)] == ids


def test_a_started_task_keeps_a_deadline_after_a_restart() -> None:
    driver = Driver()
    driver.enqueue(timeout_ms=60_000)
    worker = driver.worker()
    (held,) = driver.take(worker)
    driver.start(worker, held)

    driver.restart()
    driver.worker(held=[(held.token, [held.index], [held.index])])
    for _ in range(14):
        driver.now += 5_000
        driver.do(Beat(worker, None))
        driver.tick()

    assert driver.lost == {worker: [held.place]}
    assert driver.queue().lost_total == 1


def test_what_waits_behind_a_page_of_tasks_under_leases_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "REFILL_ROWS", 2)
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker(window=2)
    driver.take(worker)

    driver.restart()
    other = driver.worker("w2")

    assert [held.id for held in driver.take(other)] == ids[2:]
