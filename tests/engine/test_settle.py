"""Settle: the ways on from running, each gone once, with the rows that each leaves."""

import pytest

from tests.engine.harness import FAILURE, Driver, bytes_of
from tq.core.errors import SessionUnknown
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.limits import CHANGE_BYTES_MAX
from tq.core.outcome import Done, FailedAttempt, TaskFailure, TaskResult
from tq.core.retry import BACKOFF_MS_MAX, RetryPolicy
from tq.core.times import Timestamp
from tq.engine import commands as c, rows as r
from tq.engine.engine import EngineSettings
from tq.engine.settle import SETTLES_MAX


def test_a_result_is_kept_for_its_time() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(result_ttl_ms=60_000, codec="json")
    worker = driver.worker()
    (held,) = driver.take(worker)
    (ready,) = driver.rows.of(r.READY)
    (lease,) = driver.rows.of(r.LEASE)

    driver.complete(worker, held, result=b"42")

    outcome = TaskResult(task_id, TaskState.COMPLETED, Timestamp(driver.now), b"42", codec="json")
    row = r.EndedRow(driver.now + 60_000, "t", "q", 128, driver.now, 1, outcome)
    (expiry,) = driver.rows.of(r.EXPIRY)
    assert driver.last.writes == {
        ready: None,
        lease: None,
        r.TASK + task_id: r.ended_value(row),
        expiry: task_id,
        r.queue_key(r.QUEUE, 1): r.encode_row(r.QueueRow("q", enqueued_total=1, completed_total=1)),
    }
    assert driver.last.promised


def test_a_task_that_keeps_no_result_leaves_nothing() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(result_ttl_ms=0)
    worker = driver.worker()
    (held,) = driver.take(worker)
    (ready,) = driver.rows.of(r.READY)
    (lease,) = driver.rows.of(r.LEASE)

    driver.complete(worker, held, result=b"42")

    assert driver.last.writes == {
        ready: None,
        lease: None,
        r.TASK + task_id: None,
        r.queue_key(r.QUEUE, 1): r.encode_row(r.QueueRow("q", enqueued_total=1, completed_total=1)),
    }


def test_who_waits_is_told_also_if_no_result_is_kept() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(result_ttl_ms=0)
    worker = driver.worker()
    driver.do(c.Wait(3, [task_id]))

    driver.complete(worker, *driver.take(worker), result=b"42")

    (ending,) = driver.endings
    assert ending.waiters == {3}
    assert ending.result == TaskResult(task_id, TaskState.COMPLETED, Timestamp(driver.now), b"42")
    assert driver.state(task_id) == "unknown"


@pytest.mark.parametrize(("draw", "waits"), [(0.0, [1_000, 2_000]), (0.5, [750, 1_500]), (0.999_9, [500, 1_000])])
def test_a_failed_attempt_waits_as_its_policy_and_the_jitter_say(draw: float, waits: list[int]) -> None:
    driver = Driver(draw=lambda: draw)
    policy = RetryPolicy(max_attempts=3, backoff_ms=1_000, jitter=0.5)
    (task_id,) = driver.enqueue(retry=policy)
    worker = driver.worker()

    for attempts, wait in enumerate(waits, 1):
        driver.fail(worker, *driver.take(worker))
        view = driver.view(task_id)
        assert (view.state, view.due_at, view.attempts) == (TaskState.SCHEDULED, driver.now + wait, attempts)
        assert view.failure == FAILURE
        driver.tick(wait - 1)
        assert driver.take(worker) == []
        driver.tick(1)
    (last,) = driver.take(worker)
    assert (last.record.attempts, last.record.last_failure) == (2, FAILURE)


def test_a_retry_goes_to_the_end_of_the_line() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker(window=1)

    driver.fail(worker, *driver.take(worker))
    driver.tick()

    got = []
    while held := driver.take(worker):
        got.append(held[0].id)
        driver.complete(worker, *held)
    assert got == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize(("after_ms", "wait"), [(0, 0), (5_000, 5_000), (-7, 0), (1 << 60, BACKOFF_MS_MAX)])
def test_a_handler_may_say_when(after_ms: int, wait: int) -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(retry=RetryPolicy(backoff_ms=1_000))
    worker = driver.worker()

    driver.fail(worker, *driver.take(worker), retry_after_ms=after_ms)

    assert driver.view(task_id).due_at == driver.now + wait


def test_the_last_attempt_ends_in_the_dead_letter() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(retry=RetryPolicy(max_attempts=2, backoff_ms=0))
    worker = driver.worker()
    driver.do(c.Wait(9, [task_id]))

    for _ in range(2):
        driver.fail(worker, *driver.take(worker), retry_after_ms=0)
        driver.tick()

    view = driver.view(task_id)
    assert (view.state, view.reason, view.attempts, view.failure) == (TaskState.DEAD, "attempts", 2, FAILURE)
    assert [ending.result for ending in driver.endings] == [
        TaskResult(task_id, TaskState.DEAD, view.finished_at or Timestamp(0), None, DeadReason.ATTEMPTS, FAILURE, 2)
    ]
    assert (driver.queue().failed_total, driver.queue().dead, driver.queue().dead_total) == (2, 1, 1)


def test_a_rejected_task_is_dead_at_once() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()

    driver.fail(worker, *driver.take(worker), reject=True)

    assert (driver.view(task_id).reason, driver.view(task_id).attempts) == ("rejected", 1)


def test_a_result_beyond_the_limit_makes_a_dead_letter_that_says_so() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()

    driver.complete(worker, *driver.take(worker), result=bytes(driver.settings.payload_bytes_max + 1))

    view = driver.view(task_id)
    assert (view.state, view.reason) == (TaskState.DEAD, "rejected")
    assert view.failure is not None
    assert view.failure.type == "payload_too_large"
    assert "262145 bytes; the limit is 262144" in view.failure.message


LONG = TaskFailure("E" * 1_000, "m" * 100_000, "\N{SNOWMAN}" * 100_000)


def test_the_texts_of_a_failure_are_kept_as_long_as_may_be() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    (held,) = driver.take(worker)

    driver.settle(c.Settle(worker, [], [FailedAttempt(*held.place, LONG, None, True)]))

    failure = driver.view(task_id).failure
    assert failure is not None
    assert failure == LONG.bounded()
    assert (len(failure.type), len(failure.message), len(failure.traceback)) == (255, 2_048, 16_384)


@pytest.mark.parametrize("payload", [0, 300, 100_000])
@pytest.mark.parametrize("ends", ["failed", "rejected", "done", "too long"])
def test_outcomes_that_are_no_bounded_change_together_are_settled_in_several(ends: str, payload: int) -> None:
    driver = Driver(checked=False)
    ids = driver.enqueue(200, payload=bytes(payload), dispatch=False)
    worker = driver.worker(window=1_000)
    while len(driver.inbox.get(worker, [])) < 200:
        driver.dispatch()
    held = driver.take(worker)
    result = bytes(driver.settings.payload_bytes_max + 1 if ends == "too long" else 6_000)
    done: list[Done] = []
    if ends in {"done", "too long"}:
        done = [Done(*each.place, result) for each in held]
    failed = [FailedAttempt(*each.place, LONG, 1_000, ends == "rejected") for each in held] if not done else []
    rest: c.Settle | None = c.Settle(worker, done, failed)
    parts, left = 0, 200

    while rest is not None:
        settled = driver.do(rest, dispatch=False)
        rest = settled.rest
        now_left = len(rest.done) + len(rest.failed) if rest else 0
        assert now_left < left
        assert bytes_of(driver.last.writes) <= CHANGE_BYTES_MAX
        assert bytes_of(driver.last.writes) > CHANGE_BYTES_MAX // 2 or rest is None
        parts, left = parts + 1, now_left

    state = {"failed": "scheduled", "done": "completed"}.get(ends, "dead")
    assert {driver.state(task_id) for task_id in ids} == {state}
    assert parts > 1 or (ends == "too long" and payload < 1_000)


def test_one_outcome_is_settled_however_large_it_is() -> None:
    driver = Driver(settings=EngineSettings(payload_bytes_max=512 * 1024))
    driver.enqueue(2, payload=bytes(512 * 1024))
    worker = driver.worker()
    held = driver.take(worker)

    first = driver.do(c.Settle(worker, [], [FailedAttempt(*each.place, LONG, 0, False) for each in held]))
    assert first.rest is not None
    second = driver.do(first.rest)

    assert second == c.Settled([], None)


def test_a_settle_goes_on_in_the_next_batch_when_another_has_filled_this_one() -> None:
    driver = Driver()
    driver.enqueue(4, result_ttl_ms=60_000)
    one, two = driver.worker("w1", window=2), driver.worker("w2", window=2)
    results = [
        c.Settle(worker, [Done(*each.place, bytes(250_000)) for each in driver.take(worker)], [])
        for worker in (one, two)
    ]
    changes = driver.engine.changes()

    first, second = (driver.engine.apply(command, driver.now, changes) for command in results)
    driver.finish(changes)

    assert (first, second) == (c.Settled([], None), c.Settled([], results[1]))
    assert driver.settle(results[1]) == []


def test_more_outcomes_than_a_change_may_have_are_settled_in_two() -> None:
    driver = Driver(checked=False)
    driver.enqueue(SETTLES_MAX + 10, dispatch=False)
    worker = driver.worker(window=2_000)
    held = driver.take(worker)
    failed = [FailedAttempt(*each.place, FAILURE, 0, False) for each in held[600:]]

    first = driver.do(c.Settle(worker, [Done(*each.place, None) for each in held[:600]], failed))

    assert first == c.Settled([], c.Settle(worker, [], failed[400:]))


def test_a_worker_that_is_not_known_settles_nothing() -> None:
    driver = Driver()

    driver.refused(c.Settle(b"n" * 16, [Done(1, 0, None)], []), SessionUnknown)


# ------------------------------------------------------------------------------------------------ losses


def test_only_what_had_started_is_harmed_when_a_worker_dies() -> None:
    driver = Driver()
    ids = driver.enqueue(4)
    worker = driver.worker()
    held = driver.take(worker)
    driver.start(worker, held[1])

    driver.die(worker)

    views = [driver.view(task_id) for task_id in ids]
    assert [view.losses for view in views] == [0, 1, 0, 0]
    assert [view.attempts for view in views] == [0, 0, 0, 0]
    assert {view.state for view in views} == {TaskState.READY}
    assert driver.queue().lost_total == 1


def test_a_task_that_kills_its_workers_is_dead_after_its_last_loss_alone() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(max_losses=3)
    alone = []
    for name in ("w1", "w2", "w3"):
        worker = driver.worker(name)
        (held,) = driver.take(worker)
        alone.append(held.alone)
        driver.start(worker, held)
        driver.die(worker)

    view = driver.view(task_id)
    assert alone == [False, True, True]
    assert (view.state, view.reason, view.losses, view.attempts) == (TaskState.DEAD, "losses", 3, 0)
    assert view.failure is not None
    assert "3 times while running it, the last time alone" in view.failure.message


def test_a_loss_beside_others_never_makes_a_dead_letter() -> None:
    driver = Driver()
    ids = driver.enqueue(2, max_losses=1)
    worker = driver.worker()
    held = driver.take(worker)
    driver.start(worker, *held)

    driver.die(worker)
    assert [driver.state(task_id) for task_id in ids] == ["ready", "ready"]

    next_worker = driver.worker("w2")
    (alone,) = driver.take(next_worker)
    driver.start(next_worker, alone)
    driver.die(next_worker)
    assert [driver.state(task_id) for task_id in ids] == ["dead", "ready"]


def test_a_suspect_that_fails_stays_a_suspect() -> None:
    driver = Driver()
    driver.enqueue(1)
    victim = driver.worker("victim")
    (held,) = driver.take(victim)
    driver.start(victim, held)
    driver.die(victim)
    worker = driver.worker()

    driver.fail(worker, *driver.take(worker))
    driver.tick()

    (again,) = driver.take(worker)
    assert (again.alone, again.record.losses, again.record.attempts) == (True, 1, 1)


def test_a_suspect_that_completes_has_its_losses_in_its_result() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(1)
    victim = driver.worker("victim")
    (held,) = driver.take(victim)
    driver.start(victim, held)
    driver.die(victim)
    worker = driver.worker()

    driver.complete(worker, *driver.take(worker))

    assert (driver.state(task_id), driver.view(task_id).losses) == ("completed", 1)


def test_many_started_tasks_lost_at_once_write_each_lease_row_once() -> None:
    driver = Driver()
    driver.enqueue(50)
    worker = driver.worker(window=50)
    held = driver.take(worker)
    driver.start(worker, *held[:40])

    driver.die(worker)

    assert driver.queue().lost_total == 40
    assert driver.rows.of(r.LEASE) == {}


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

    assert driver.last.promised
    assert driver.state(task_id) == "dead"
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


def test_a_settle_is_a_sign_of_life() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker()
    one, two = driver.take(worker)

    driver.now += driver.settings.lease_ms - 1
    driver.complete(worker, one)
    driver.tick(driver.settings.lease_ms - 1)

    assert driver.state(two.id) == "running"
