"""Restore: what a restart finds again, and what it costs."""

import pytest

from tests.engine.harness import Driver
from tq.engine import commands as c, flows, rows as r


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
        driver.beat(worker)
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


def test_leases_of_a_known_worker_go_on_with_fresh_time() -> None:
    driver = Driver()
    ids = driver.enqueue(2)
    worker = driver.worker(window=2)
    one, two = driver.take(worker)
    driver.start(worker, two)
    driver.now += driver.settings.lease_ms - 1

    driver.restart()
    driver.tick(driver.settings.lease_ms - 1)

    assert [driver.state(task_id) for task_id in ids] == ["running", "running"]
    assert [driver.view(task_id).started for task_id in ids] == [False, True]
    assert driver.complete(worker, one, two) == []


def test_a_worker_that_never_comes_back_after_a_restart_loses_its_leases() -> None:
    driver = Driver()
    ids = driver.enqueue(2)
    worker = driver.worker(window=2)
    _, two = driver.take(worker)
    driver.start(worker, two)

    driver.restart()
    driver.tick(driver.settings.lease_ms)

    assert [driver.state(task_id) for task_id in ids] == ["ready", "ready"]
    assert [driver.view(task_id).losses for task_id in ids] == [0, 1]
    assert driver.do(c.ListWorkers())[0] == []


def test_a_task_that_was_handed_back_and_out_again_is_under_its_last_lease_only() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker("w1", window=2)
    first, _ = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.release(worker, first)
    other = driver.worker("w2")
    (again,) = driver.take(other)
    assert again.id == first.id

    driver.restart()

    assert driver.view(first.id).worker == "w2"
    assert driver.complete(worker, first) == [first.place]
    assert driver.complete(other, again) == []


def test_a_settled_task_of_a_lease_that_lives_on_stays_settled() -> None:
    driver = Driver()
    driver.enqueue(3)
    worker = driver.worker()
    one, two, three = driver.take(worker)
    driver.complete(worker, one)
    driver.fail(worker, two, retry_after_ms=5_000)

    driver.restart()

    assert [driver.state(each.id) for each in (one, two, three)] == ["completed", "scheduled", "running"]
    assert driver.complete(worker, one, two) == [one.place, two.place]


def test_a_suspect_that_runs_alone_still_does_after_a_restart() -> None:
    driver = Driver()
    driver.enqueue(1)
    victim = driver.worker("victim")
    driver.start(victim, *driver.take(victim))
    driver.die(victim)
    worker = driver.worker()
    (alone,) = driver.take(worker)
    driver.enqueue(2)

    driver.restart()
    driver.worker(held=[(alone.token, [alone.index], [])])

    assert driver.take(worker) == []
    driver.complete(worker, alone)
    assert len(driver.take(worker)) == 2


def test_waits_are_forgotten_and_asked_for_again() -> None:
    driver = Driver()
    ids = driver.enqueue(1)
    driver.do(c.Wait(1, ids))
    driver.restart()
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker))

    assert driver.endings == []
    ended, _ = driver.do(c.Wait(1, ids))
    assert [result.id for result in ended] == ids


def test_a_restart_reads_what_runs_and_what_is_active_and_no_task_that_waits() -> None:
    driver = Driver(checked=False)
    driver.enqueue(20_000, dispatch=False)
    driver.enqueue(20_000, priority=200, dispatch=False)
    worker = driver.worker(window=10)
    driver.fail(worker, *driver.take(worker), retry_after_ms=60_000)
    driver.rows.forget_counts()

    driver.restart()
    reads = driver.rows.reads
    driver.worker()

    assert reads < 60
    assert driver.rows.rows_read < 2 * flows.REFILL_ROWS + 60


def test_a_second_restart_finds_the_same() -> None:
    driver = Driver()
    driver.enqueue(5)
    worker = driver.worker(window=2)
    driver.start(worker, driver.take(worker)[0])
    driver.restart()
    before = {key: value for key, value in driver.rows.rows.items() if key[:1] != r.META}

    driver.restart()

    assert {key: value for key, value in driver.rows.rows.items() if key[:1] != r.META} == before
