"""Retention: what has ended is kept for its time, then forgotten, a slice at a time."""

import pytest

from tests.engine.harness import Driver
from tq.core.times import HOUR
from tq.engine import changes, commands as c, retention, rows as r
from tq.engine.retention import IDS_PER_ROW_MAX


def complete(driver: Driver, count: int = 1, ttl: int = 60_000) -> list[bytes]:
    ids = driver.enqueue(count, result_ttl_ms=ttl)
    worker = driver.worker("completing", window=1_000)
    while held := driver.take(worker):
        driver.complete(worker, *held)
    driver.do(c.Leave(worker))
    return ids


def bury(driver: Driver) -> bytes:
    (task_id,) = driver.enqueue()
    worker = driver.worker("burying")
    driver.fail(worker, *driver.take(worker), reject=True)
    driver.do(c.Leave(worker))
    return task_id


def test_a_result_is_kept_for_its_time_and_then_forgotten() -> None:
    driver = Driver()
    (task_id,) = complete(driver, ttl=60_000)

    driver.tick(59_999)
    assert driver.state(task_id) == "completed"
    driver.tick(1_000)

    assert driver.state(task_id) == "unknown"
    assert (driver.rows.of(r.TASK), driver.rows.of(r.EXPIRY)) == ({}, {})


def test_a_cancelled_task_is_kept_as_a_result_is() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(result_ttl_ms=60_000)
    driver.do(c.Cancel([task_id]))

    driver.tick(59_999)
    assert driver.state(task_id) == "cancelled"
    driver.tick(1_000)
    assert driver.state(task_id) == "unknown"


def test_a_dead_letter_is_kept_for_its_time_and_then_forgotten_and_uncounted() -> None:
    driver = Driver()
    task_id = bury(driver)

    driver.tick(driver.settings.dead_retention_ms - 1)
    assert (driver.state(task_id), driver.queue().dead) == ("dead", 1)
    driver.tick(1_000)

    assert (driver.state(task_id), driver.queue().dead, driver.queue().dead_total) == ("unknown", 0, 1)
    assert driver.rows.of(r.DEAD) == {}


def forget(driver: Driver) -> list[tuple[bytes, bytes]]:
    """Forget what is over; returns the ranges that are said to have been emptied."""
    emptied: list[tuple[bytes, bytes]] = []
    while driver.engine.next_tick(driver.now) <= driver.now:
        driver.do(c.Tick())
        emptied += driver.last.emptied
    return emptied


def test_many_results_whose_time_is_over_say_where_they_were_once_none_is_soon_to_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "EMPTIED_BYTES_MIN", 60_000)
    driver = Driver(checked=False)
    ids = complete(driver, 2_000) + complete(driver, 500, ttl=90_000)
    complete(driver, 1_000, ttl=1_000_000)
    assert len(driver.rows.of(r.TASK)) == 3_500

    driver.now += 61_000
    assert forget(driver) == []
    driver.now += 30_000
    assert forget(driver) == [(r.TASK + min(ids), r.TASK + max(ids) + b"\0")]
    assert len(driver.rows.of(r.TASK)) == 1_000


def test_a_few_results_whose_time_is_over_ask_for_nothing() -> None:
    driver = Driver()
    complete(driver, 10)

    driver.now += 61_000

    assert forget(driver) == []
    assert driver.rows.of(r.TASK) == {}


def test_what_ends_in_one_batch_and_second_shares_a_row() -> None:
    driver = Driver(checked=False)
    complete(driver, 900)

    ids = [task_id for value in driver.rows.of(r.EXPIRY).values() for task_id in r.split_ids(value)]

    assert len(ids) == 900
    assert len(driver.rows.of(r.EXPIRY)) <= 2


def test_results_are_forgotten_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_SLICE_ROWS", 2)
    driver = Driver()
    for _ in range(5):
        complete(driver)
    driver.now += 61_000

    left = []
    while driver.rows.of(r.TASK):
        driver.do(c.Tick())
        left.append(len(driver.rows.of(r.TASK)))

    assert left == [3, 1, 0]


def test_a_tick_forgets_as_many_results_as_many_small_batches_have_made() -> None:
    driver = Driver(checked=False)
    for _ in range(150):
        complete(driver)
    driver.now += 61_000

    driver.do(c.Tick())

    assert driver.rows.of(r.TASK) == {}


def test_a_full_row_is_one_slice() -> None:
    driver = Driver(checked=False)
    changes = driver.engine.changes()
    ids = driver.enqueue(1_000) + driver.enqueue(600)
    for start in (0, 800):
        driver.engine.apply(c.Cancel(ids[start : start + 800]), driver.now, changes)
    driver.finish(changes)
    assert sorted(len(r.split_ids(value)) for value in driver.rows.of(r.EXPIRY).values()) == [600, IDS_PER_ROW_MAX]

    driver.now += HOUR + 1_000
    driver.do(c.Tick())
    assert len(driver.rows.of(r.EXPIRY)) == 1
    driver.tick()
    assert driver.rows.of(r.TASK) == {}


def test_a_redriven_task_that_ended_again_is_kept_for_its_new_time() -> None:
    driver = Driver()
    task_id = bury(driver)
    driver.tick(driver.settings.dead_retention_ms - 30_000)
    driver.do(c.RedriveDead("q", []))
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker), result=b"r")

    driver.tick(31_000)
    assert driver.state(task_id) == "completed"
    driver.tick(HOUR)
    assert driver.state(task_id) == "unknown"


def test_a_redriven_task_that_died_again_is_kept_for_its_new_time() -> None:
    driver = Driver()
    task_id = bury(driver)
    driver.tick(driver.settings.dead_retention_ms - 30_000)
    driver.do(c.RedriveDead("q", []))
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker), reject=True)

    driver.tick(31_000)
    assert (driver.state(task_id), driver.queue().dead) == ("dead", 1)
    driver.tick(driver.settings.dead_retention_ms)
    assert (driver.state(task_id), driver.queue().dead) == ("unknown", 0)


def test_a_redriven_task_that_still_waits_is_not_forgotten_with_its_first_end() -> None:
    driver = Driver()
    task_id = bury(driver)
    driver.do(c.RedriveDead("q", []))

    driver.tick(driver.settings.dead_retention_ms + 1_000)

    assert driver.state(task_id) == "ready"


def test_results_are_forgotten_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_FLOOR_ROWS", 1)
    driver = Driver()
    ids = complete(driver, ttl=1_000) + complete(driver, ttl=5_000)
    driver.tick(2_000)

    driver.restart()
    assert [driver.state(task_id) for task_id in ids] == ["unknown", "completed"]
    driver.tick(4_000)

    assert driver.rows.of(r.TASK) == {}
    assert driver.rows.get(r.META + b"expiry") is not None


def test_a_result_that_ends_behind_the_floor_is_forgotten_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_FLOOR_ROWS", 1)
    driver = Driver()
    complete(driver, ttl=1_000)
    driver.tick(5_000)
    driver.now -= 4_500  # a restart may find a clock that is a little behind

    (task_id,) = complete(driver, ttl=100)
    driver.tick(10_000)

    assert driver.state(task_id) == "unknown"


def test_answers_to_frames_are_forgotten_when_no_resend_can_come() -> None:
    driver = Driver()
    driver.enqueue(3)
    assert len(driver.rows.of(r.FRAME)) == 1

    driver.tick(driver.settings.frame_memory_ms)
    assert len(driver.rows.of(r.FRAME)) == 1
    driver.tick(HOUR + 20_000)

    assert driver.rows.of(r.FRAME) == {}


def test_many_answers_are_forgotten_in_slices_and_not_read_again() -> None:
    driver = Driver(checked=False)
    for _ in range(2_500):
        driver.do(c.Enqueue(driver.new_id(), [], []))
    driver.now += driver.settings.frame_memory_ms + HOUR + 20_000

    driver.do(c.Tick())
    assert len(driver.rows.of(r.FRAME)) == 1_500
    driver.tick()
    assert driver.rows.of(r.FRAME) == {}

    driver.rows.forget_counts()
    driver.tick(20_000)
    assert driver.rows.rows_read == 0
