"""Restore: what a restart finds again, and what it costs."""

from tests.engine.harness import Driver


def test_tasks_given_back_after_a_restart_are_handed_out_once() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker()
    driver.take(worker)

    driver.restart()
    driver.worker()

    assert [held.id for held in driver.take(worker)] == ids
