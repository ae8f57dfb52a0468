"""Lookup: every task is shown where it is."""

import msgspec
import pytest

from tests.engine.harness import FAILURE, Driver
from tq.core.errors import BatchTooLarge
from tq.core.ids import compose
from tq.core.lifecycle import TaskState
from tq.core.limits import ANSWER_BYTES_MAX, FRAME_BYTES_MAX
from tq.core.outcome import FailedAttempt, TaskFailure
from tq.core.priority import Priority
from tq.core.task import TaskView
from tq.core.times import Timestamp
from tq.engine import commands as c
from tq.engine.engine import EngineSettings

UNKNOWN = compose(Timestamp(1), 1)


def test_a_ready_task_is_shown_whole() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(payload=b"12345", priority=7)

    assert driver.get(task_id) == TaskView(
        id=task_id,
        name="t",
        queue="q",
        state=TaskState.READY,
        priority=Priority(7),
        enqueued_at=Timestamp(driver.now),
        max_attempts=5,
        timeout_ms=3_600_000,
        payload_bytes=5,
    )


def test_a_running_task_tells_its_worker_and_whether_it_started() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker("alpha")
    (held,) = driver.take(worker)

    assert (driver.view(task_id).state, driver.view(task_id).worker) == (TaskState.RUNNING, "alpha")
    assert not driver.view(task_id).started
    driver.start(worker, held)
    assert driver.view(task_id).started


def test_a_scheduled_task_tells_when_and_why() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker), retry_after_ms=1_000)

    view = driver.view(task_id)

    assert (view.state, view.due_at, view.failure) == (TaskState.SCHEDULED, driver.now + 1_000, FAILURE)


def test_a_completed_task_tells_its_result() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(codec="json", priority=9)
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker), result=b"42")

    view = driver.view(task_id)

    assert (view.state, view.result, view.codec, view.priority) == (TaskState.COMPLETED, b"42", "json", 9)
    assert (view.finished_at, view.enqueued_at) == (driver.now, driver.now)


def test_a_dead_task_tells_its_reason_and_its_last_failure() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker), reject=True)

    view = driver.view(task_id)

    assert (view.state, view.reason, view.failure, view.finished_at) == (
        TaskState.DEAD,
        "rejected",
        FAILURE,
        driver.now,
    )


def test_answers_are_in_the_order_of_the_question() -> None:
    driver = Driver()
    one, two = driver.enqueue(2)

    views = driver.do(c.Get([two, UNKNOWN, one, two]))

    assert [view.id if view else None for view in views] == [two, None, one, two]


def test_a_wait_parts_the_ended_from_the_unknown_and_waits_for_the_rest() -> None:
    driver = Driver()
    completed, dead, running, ready = driver.enqueue(4)
    worker = driver.worker(window=3)
    one, two, _ = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.complete(worker, one, result=b"r")
    driver.fail(worker, two, reject=True)

    ended, unknown = driver.do(c.Wait(1, [completed, UNKNOWN, dead, running, ready]))

    assert [(result.id, result.state.value, result.result) for result in ended] == [
        (completed, "completed", b"r"),
        (dead, "dead", None),
    ]
    assert ended[1].failure == FAILURE
    assert unknown == [UNKNOWN]
    assert set(driver.engine._waiters._by_task) == {running, ready}


@pytest.mark.parametrize("command", [c.Get([UNKNOWN] * 1_001), c.Wait(1, [UNKNOWN] * 1_001)])
def test_a_question_has_its_limit(command: c.Command[object]) -> None:
    Driver().refused(command, BatchTooLarge)


# ------------------------------------------------------------------------------------------------ long answers


def ended(driver: Driver, count: int, result: bytes) -> list[bytes]:
    """Let tasks end with long results."""
    ids = driver.enqueue(count, result_ttl_ms=60_000)
    worker = driver.worker(window=count)
    while held := driver.take(worker):
        driver.complete(worker, *held, result=result)
    return ids


def buried(driver: Driver, count: int) -> list[bytes]:
    """Let tasks end as dead letters with the longest texts there are."""
    ids = driver.enqueue(count, payload=bytes(50_000))
    worker = driver.worker(window=count)
    failure = TaskFailure("E" * 255, "m" * 2_048, "\N{SNOWMAN}" * 16_384)
    while held := driver.take(worker):
        driver.settle(c.Settle(worker, [], [FailedAttempt(*each.place, failure, None, True) for each in held]))
    return ids


@pytest.mark.parametrize("kind", ["results", "dead letters"])
@pytest.mark.parametrize("how", ["get", "wait"])
def test_a_long_answer_is_refused_before_more_than_it_may_hold_is_read_and_halves_end(kind: str, how: str) -> None:
    driver = Driver(checked=False)
    ids = ended(driver, 200, bytes(200_000)) if kind == "results" else buried(driver, 100)
    told: list[bytes] = []
    pages, asked, read = [ids], 0, 0

    while pages:
        page = pages.pop(0)
        driver.rows.forget_counts()
        asked += 1
        try:
            if how == "get":
                views = driver.do(c.Get(page))
                size = len(msgspec.msgpack.encode(views))
                told += [view.id for view in views if view is not None]
            else:
                results, unknown = driver.do(c.Wait(7, page))
                size = len(msgspec.msgpack.encode((results, unknown)))
                told += [result.id for result in results]
            assert size <= FRAME_BYTES_MAX - 1_024
        except BatchTooLarge:
            pages[:0] = [page[: len(page) // 2], page[len(page) // 2 :]]
        assert driver.rows.gets <= 2 * (ANSWER_BYTES_MAX // 50_000 + 2)
        read += driver.rows.gets

    assert told == ids
    assert asked < len(ids)
    assert read < 8 * len(ids)


def test_a_refused_wait_waits_for_nothing() -> None:
    driver = Driver()
    ids = ended(driver, 10, bytes(200_000))
    (pending,) = driver.enqueue(name="nobody's")

    driver.refused(c.Wait(7, [pending, *ids]), BatchTooLarge)


def test_the_answer_for_one_task_is_never_too_long() -> None:
    driver = Driver(settings=EngineSettings(payload_bytes_max=512 * 1024))
    (one,) = ended(driver, 1, bytes(512 * 1024))
    (dead,) = buried(driver, 1)

    for task_id in (one, dead):
        assert len(msgspec.msgpack.encode(driver.do(c.Get([task_id])))) < ANSWER_BYTES_MAX
        assert len(driver.do(c.Wait(7, [task_id]))[0]) == 1


def test_a_thousand_small_tasks_are_one_answer() -> None:
    driver = Driver(checked=False)
    ids = driver.enqueue(1_000)

    views = driver.do(c.Get(ids))

    assert [view.id for view in views if view is not None] == ids
