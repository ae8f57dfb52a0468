"""The timeline: due in the order of time, never before it, and floors that lose nothing."""

import pytest

from tests.engine.harness import FAILURE, Driver
from tq.core.outcome import FailedAttempt
from tq.engine import commands as c, passage, rows as r, timeline
from tq.engine.operations import SLICE_BYTES


def schedule(driver: Driver, *waits: int) -> list[bytes]:
    """Let one task fail for each of *waits*; returns their ids."""
    frame = driver.frame(len(waits))
    driver.do(frame)
    worker = driver.worker("failing", window=len(waits))
    for held, wait in zip(driver.take(worker), waits, strict=True):
        driver.fail(worker, held, retry_after_ms=wait)
    driver.do(c.Leave(worker))
    return [task.id for task in frame.tasks]


def states(driver: Driver, ids: list[bytes]) -> list[str]:
    return [driver.state(task_id) for task_id in ids]


def test_tasks_are_due_in_the_order_of_their_time() -> None:
    driver = Driver()
    ids = schedule(driver, 3_000, 1_000, 2_000, 1_000)

    driver.tick(5_000)

    worker = driver.worker()
    assert [held.id for held in driver.take(worker)] == [ids[1], ids[3], ids[2], ids[0]]


def test_a_task_is_due_at_its_millisecond_and_not_before() -> None:
    driver = Driver()
    ids = schedule(driver, 1_000)
    assert driver.engine.next_tick(driver.now) <= driver.now + 1_000

    driver.tick(999)
    assert states(driver, ids) == ["scheduled"]
    driver.tick(1)
    assert states(driver, ids) == ["ready"]


def test_scheduled_tasks_are_due_after_a_restart() -> None:
    driver = Driver()
    ids = schedule(driver, 1_000, 3_000)

    driver.tick(1_000)
    driver.restart()
    assert states(driver, ids) == ["ready", "scheduled"]
    driver.tick(2_000)

    assert states(driver, ids) == ["ready", "ready"]


def test_a_cancelled_task_is_never_due() -> None:
    driver = Driver()
    ids = schedule(driver, 1_000, 1_000)

    assert driver.do(c.Cancel(ids[:1])) == []
    driver.tick(1_000)

    assert states(driver, ids) == ["cancelled", "ready"]
    assert driver.queue().scheduled == 0


def test_a_retry_at_once_is_due_in_the_same_millisecond_also_behind_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_FLOOR_ROWS", 1)
    driver = Driver()
    driver.do(c.Cancel(schedule(driver, 500, 600)[1:]))
    driver.tick(550)
    driver.do(c.PurgeQueue("q"))

    later = schedule(driver, 0)
    driver.tick()
    assert states(driver, later) == ["ready"]

    driver.do(c.PurgeQueue("q"))
    driver.now -= 40  # a restart may find a clock that is a little behind
    last = schedule(driver, 0, 10)
    driver.tick(40)
    assert states(driver, last) == ["ready", "ready"]


def test_a_row_added_in_the_batch_in_which_others_are_due_is_not_lost() -> None:
    driver = Driver()
    ids = schedule(driver, 1_000)
    (fresh,) = driver.enqueue()
    worker = driver.worker()
    (held,) = driver.take(worker)
    driver.now += 1_000
    changes = driver.engine.changes()

    driver.engine.apply(c.Tick(), driver.now, changes)
    failed = FailedAttempt(*held.place, FAILURE, 0, reject=False)
    driver.engine.apply(c.Settle(worker, [], [failed]), driver.now, changes)
    driver.finish(changes)
    driver.tick()

    got = [each.id for each in driver.take(worker)]
    assert sorted(got) == sorted([*ids, fresh])


def test_a_million_due_at_once_are_moved_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "SLICE_ROWS", 3)
    driver = Driver()
    schedule(driver, *[1_000] * 8)
    driver.now += 1_000

    moved = []
    while driver.rows.of(r.DUE):
        driver.do(c.Tick())
        moved.append(8 - len(driver.rows.of(r.DUE)))

    assert moved == [3, 6, 8]


def test_large_tasks_due_at_once_do_not_make_a_change_too_large() -> None:
    driver = Driver()
    worker = driver.worker(window=8)
    for _ in range(8):
        driver.enqueue(payload=bytes(100_000))
    driver.fail(worker, *driver.take(worker), retry_after_ms=1_000)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.now += 1_000

    driver.do(c.Tick())

    size = sum(len(key) + len(value or b"") for key, value in driver.last.writes.items())
    assert size < SLICE_BYTES + 101_000


def test_the_floor_is_written_now_and_then_and_kept_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "_FLOOR_ROWS", 3)
    driver = Driver()
    schedule(driver, 1, 2, 3, 4)
    driver.tick(10)
    ids = schedule(driver, 5, 6)

    driver.restart()
    driver.tick(10)

    assert driver.rows.get(r.META + b"due") is not None
    assert states(driver, ids) == ["ready", "ready"]
