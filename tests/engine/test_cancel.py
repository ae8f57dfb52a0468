"""Cancel: what waits is withdrawn, what does not is refused, one by one."""

import pytest

from tests.engine.harness import Driver
from tq.core.errors import BatchTooLarge
from tq.core.ids import compose
from tq.core.times import Timestamp
from tq.engine import commands as c, rows as r

UNKNOWN = compose(Timestamp(1), 1)


def test_a_cancelled_task_leaves_its_end_and_nothing_else() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    (key,) = driver.rows.of(r.READY)

    assert driver.do(c.Cancel([task_id])) == []

    assert driver.last.writes[key] is None
    assert driver.last.promised
    view = driver.view(task_id)
    assert (view.state.value, view.finished_at, view.attempts) == ("cancelled", driver.now, 0)
    assert (driver.queue().ready, driver.queue().cancelled_total) == (0, 1)


def test_a_cancelled_task_that_keeps_no_result_leaves_nothing() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(result_ttl_ms=0)

    assert driver.do(c.Cancel([task_id])) == []

    assert (driver.rows.of(r.TASK), driver.rows.of(r.READY)) == ({}, {})


def test_a_scheduled_task_is_withdrawn_with_its_attempts() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker), retry_after_ms=1_000)

    assert driver.do(c.Cancel([task_id])) == []
    driver.tick(2_000)

    assert (driver.view(task_id).state.value, driver.view(task_id).attempts) == ("cancelled", 1)
    assert driver.rows.of(r.DUE) == {}


def test_what_does_not_wait_is_refused_with_its_state() -> None:
    driver = Driver()
    running, completed, dead, cancelled, purged = driver.enqueue(5)
    worker = driver.worker(window=3)
    _, two, three = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.complete(worker, two)
    driver.fail(worker, three, reject=True)
    driver.do(c.Cancel([cancelled]))
    driver.do(c.PurgeQueue("q"))
    ids = [running, completed, dead, cancelled, purged, UNKNOWN]

    refused = driver.do(c.Cancel(ids))

    assert [task_id for task_id, _, _ in refused] == ids
    assert [code for _, code, _ in refused] == ["wrong_state"] * 4 + ["task_not_found"] * 2
    assert [text.split(" is ")[-1] for _, _, text in refused[:4]] == [
        "running, not waiting",
        "completed, not waiting",
        "dead, not waiting",
        "cancelled, not waiting",
    ]
    assert refused[4][2].endswith("was purged")


def test_a_task_named_twice_is_cancelled_once() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()

    refused = driver.do(c.Cancel([task_id, task_id]))

    assert [code for _, code, _ in refused] == ["wrong_state"]
    assert driver.queue().cancelled_total == 1


def test_a_purged_task_that_was_scheduled_cannot_be_cancelled() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker), retry_after_ms=1_000)
    driver.do(c.PurgeQueue("q"))

    assert [code for _, code, _ in driver.do(c.Cancel([task_id]))] == ["task_not_found"]
    assert driver.queue().cancelled_total == 0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_suspect_can_be_cancelled(*, restarted: bool) -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    victim = driver.worker("victim")
    driver.start(victim, *driver.take(victim))
    driver.die(victim)
    if restarted:
        driver.restart()

    assert driver.do(c.Cancel([task_id])) == []

    assert (driver.view(task_id).state.value, driver.view(task_id).losses) == ("cancelled", 1)
    worker = driver.worker()
    assert driver.take(worker) == []


def test_more_ids_than_one_change_may_hold_are_refused() -> None:
    Driver().refused(c.Cancel([UNKNOWN] * 1_001), BatchTooLarge)
