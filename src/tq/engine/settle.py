"""Settle: how a running task ends, is tried again, or goes back to its queue.

Two counters are kept apart: ``attempts`` (the handler failed) and ``losses`` (its worker
died or went silent while the task had started).  A task with losses is a suspect and is
handed out alone, so that what kills workers is found without harming what ran beside it.

Invariant: a task leaves ``running`` exactly once per lease, in the batch that writes
where it went.  A batch in which a task ends is promised: that the task has ended may be
told, to who waits or to who asks, and must not be undone by a crash.
"""

from collections.abc import Callable

from tq.core.errors import ErrorCode
from tq.core.lifecycle import DeadReason, Step, TaskState, after
from tq.core.limits import CHANGE_BYTES_MAX
from tq.core.outcome import FailedAttempt, TaskFailure, TaskResult
from tq.core.retry import BACKOFF_MS_MAX, backoff
from tq.core.task import TaskRecord
from tq.core.times import Timestamp
from tq.engine.changes import Changes
from tq.engine.commands import Settle, Settled
from tq.engine.flows import Flow, QueuedTask
from tq.engine.leases import Leases
from tq.engine.meta import Meta
from tq.engine.places import moves
from tq.engine.queues import Queue, Queues
from tq.engine.retention import Retention
from tq.engine.rows import (
    DEAD,
    DUE,
    ENDED,
    LEASE,
    READY,
    TASK,
    DeadRow,
    EndedRow,
    dead_prefix,
    decode_record,
    encode_record,
    encode_row,
    ended_value,
    u64,
)
from tq.engine.timeline import Timeline
from tq.engine.waiters import Waiters
from tq.engine.workers import WorkerSession

# What those who wait are told: where the life cycle leads.
_COMPLETED = after(TaskState.RUNNING, Step.COMPLETE)
_DEAD = after(TaskState.RUNNING, Step.BURY)
_CANCELLED = after(TaskState.READY, Step.CANCEL)

SETTLES_MAX = 1_000
# What an outcome writes besides result, record and texts: 130 bytes of keys, 110 of what is kept of an end.
_OUTCOME_BYTES = 256
# The row of its queue, written once a batch; the queue's name comes to it.
_QUEUE_BYTES = 160
_CHARACTER_BYTES_MAX = 4


class Settler:
    """Ends attempts.  *draw* returns random numbers, 0 <= draw() < 1, for the jitter of retries."""

    def __init__(
        self,
        meta: Meta,
        queues: Queues,
        leases: Leases,
        timeline: Timeline,
        retention: Retention,
        waiters: Waiters,
        *,
        draw: Callable[[], float],
        payload_bytes_max: int,
        dead_retention_ms: int,
    ) -> None:
        self._meta = meta
        self._queues = queues
        self._leases = leases
        self._timeline = timeline
        self._retention = retention
        self._waiters = waiters
        self._draw = draw
        self._payload_bytes_max = payload_bytes_max
        self._dead_retention_ms = dead_retention_ms

    def apply(self, command: Settle, worker: WorkerSession, now: int, changes: Changes) -> Settled:
        """Settle outcomes, in their order, as many as the batch has room for: the first of a batch in any case."""
        lost: list[tuple[int, int]] = []
        find, session = self._leases.find, command.session
        done = command.done[:SETTLES_MAX]
        failures = command.failed[: SETTLES_MAX - len(done)]
        payload_bytes_max = self._payload_bytes_max
        used = changes.settled_bytes
        flow: Flow | None = None
        each = count = 0
        for attempt in done:
            task = find(session, attempt.token, attempt.index)
            if task is None:
                lost.append((attempt.token, attempt.index))
                count += 1
                continue
            result, size = attempt.result, each
            if task.flow is not flow:
                flow = task.flow
                each = _OUTCOME_BYTES + len(flow.name) * _CHARACTER_BYTES_MAX + len(task.spec.queue)
                size = each + _QUEUE_BYTES + len(task.spec.queue)
            if result is not None:
                size += len(result)
                if len(result) > payload_bytes_max:
                    size = _OUTCOME_BYTES + _QUEUE_BYTES + len(task.record)
            if used and used + size > CHANGE_BYTES_MAX:
                break
            used += size
            count += 1
            worker.drop(task)
            if result is None or len(result) <= payload_bytes_max:
                self._complete(task, result, now, changes)
            else:
                self._refuse_result(task, result, now, changes)
        else:
            for failed in failures:
                task = find(session, failed.token, failed.index)
                if task is None:
                    lost.append((failed.token, failed.index))
                    count += 1
                    continue
                failure = failed.failure.bounded()
                size = _OUTCOME_BYTES + _QUEUE_BYTES + len(task.record) + failure.text_bytes
                if used and used + size > CHANGE_BYTES_MAX:
                    break
                used += size
                count += 1
                worker.drop(task)
                self._fail(task, failed, failure, now, changes)
        changes.settled_bytes = used
        return Settled(lost, _after(command, count))

    @moves(TaskState.RUNNING, Step.RELEASE, deletes=(LEASE,))
    def release(self, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        """Put unstarted *tasks* back to their old places, unharmed."""
        self._leases.hand_back(tasks, changes)
        for task in tasks:
            self._return(task, now, changes)

    def lose(self, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        """Deal with *tasks* whose lease is lost: those that had started are suspects from now on.

        The others lose nothing; but one that this happens to again is handed out alone too,
        where it is marked before it starts, so that its worker's next death is its own.
        """
        started = [task for task in tasks if task.started_at]
        waiting = [task for task in tasks if not task.started_at]
        for task in waiting:
            task.abandoned += 1
        self.release(waiting, now, changes)
        suspects: list[QueuedTask] = []
        for task in started:
            lease = task.lease
            assert lease is not None, "only a task under a lease can lose it"
            task.flow.queue.row.lost_total += 1
            self._queues.touch(task.flow.queue)
            if task.losses + 1 >= task.spec.max_losses and lease.alone:
                failure = TaskFailure(
                    "WorkerLost",
                    f"its worker died or went silent {task.losses + 1} times while running it, the last time alone",
                )
                task.losses += 1
                self._bury(task, DeadReason.LOSSES, failure, now, changes)
            else:
                suspects.append(task)
        self._return_suspects(suspects, now, changes)

    @moves(TaskState.RUNNING, Step.LOSE, deletes=(LEASE,))
    def _return_suspects(self, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        """Put started *tasks* back to their old places, each with one loss more."""
        # Together: each lease row that names some of them is written once.
        self._leases.hand_back(tasks, changes)
        for task in tasks:
            record = decode_record(task.record)
            task.losses = record.losses = record.losses + 1
            task.record = changes.writes[task.key] = encode_record(record)
            self._return(task, now, changes)

    def cancelled(self, record: TaskRecord, queue: Queue, now: int, changes: Changes) -> None:
        """Keep that a task, whose row the caller deletes, was cancelled, and tell who waits."""
        queue.row.cancelled_total += 1
        self._queues.touch(queue)
        outcome = TaskResult(record.id, _CANCELLED, Timestamp(now), attempts=record.attempts, losses=record.losses)
        self._keep(record, outcome, changes)

    def _return(self, task: QueuedTask, now: int, changes: Changes) -> None:
        flow = task.flow
        queue = flow.queue
        if flow.live:
            place = self._queues.flow(queue, flow.id, task.seq, changes)
            task.flow = place
            place.give_back(task, changes)
            queue.wake_front(place)
        else:
            # Its queue was purged while it was held: it has no line to go back to.
            self._purge(task, now, changes)

    @moves(TaskState.RUNNING, Step.PURGE, deletes=(READY, LEASE))
    def _purge(self, task: QueuedTask, now: int, changes: Changes) -> None:
        """Drop *task*, which is under no lease any more, after the others of its purged queue."""
        queue = task.flow.queue
        changes.promised = True
        changes.writes[task.key] = None
        changes.writes[TASK + task.id] = None
        queue.row.pending -= 1
        queue.row.purged_total += 1
        self._queues.touch(queue)
        self._waiters.tell(
            TaskResult(task.id, _CANCELLED, Timestamp(now), attempts=task.attempts, losses=task.losses),
            changes,
        )

    def _refuse_result(self, task: QueuedTask, result: bytes, now: int, changes: Changes) -> None:
        failure = TaskFailure(
            ErrorCode.PAYLOAD_TOO_LARGE.value,
            f"the result has {len(result)} bytes; the limit is {self._payload_bytes_max}",
        )
        self._bury(task, DeadReason.REJECTED, failure, now, changes)

    @moves(TaskState.RUNNING, Step.COMPLETE, deletes=(READY, LEASE), writes=(ENDED,))
    def _complete(self, task: QueuedTask, result: bytes | None, now: int, changes: Changes) -> None:
        self._leave(task, changes)
        row = task.flow.queue.row
        row.completed_total += 1
        spec = task.spec
        if not spec.result_ttl_ms and task.id not in self._waiters:
            changes.writes[TASK + task.id] = None
            return
        outcome = TaskResult(
            task.id,
            _COMPLETED,
            Timestamp(now),
            result,
            None,
            None,
            task.attempts,
            task.losses,
            spec.codec,
        )
        self._keep(task, outcome, changes)

    def _fail(self, task: QueuedTask, failed: FailedAttempt, failure: TaskFailure, now: int, changes: Changes) -> None:
        attempts = task.attempts + 1
        task.flow.queue.row.failed_total += 1
        if failed.reject:
            task.attempts = attempts
            self._bury(task, DeadReason.REJECTED, failure, now, changes)
            return
        if attempts >= task.spec.retry.max_attempts:
            task.attempts = attempts
            self._bury(task, DeadReason.ATTEMPTS, failure, now, changes)
            return
        wait_ms = failed.retry_after_ms
        if wait_ms is None:
            wait_ms = backoff(task.spec.retry, attempts, self._draw())
        self._retry(task, failure, now + min(max(wait_ms, 0), BACKOFF_MS_MAX), changes)

    @moves(TaskState.RUNNING, Step.RETRY, deletes=(READY, LEASE), writes=(DUE,))
    def _retry(self, task: QueuedTask, failure: TaskFailure, due: int, changes: Changes) -> None:
        record = decode_record(task.record)
        record.attempts += 1
        record.last_failure = failure
        self._leave(task, changes)
        self._timeline.add(record, task.flow.queue, due, changes)

    @moves(TaskState.RUNNING, Step.BURY, deletes=(READY, LEASE), writes=(DEAD,))
    def _bury(self, task: QueuedTask, reason: DeadReason, failure: TaskFailure, now: int, changes: Changes) -> None:
        self._leave(task, changes)
        changes.promised = True
        queue = task.flow.queue
        queue.row.dead += 1
        queue.row.dead_total += 1
        record = decode_record(task.record)
        record.attempts, record.losses, record.last_failure = task.attempts, task.losses, failure
        expires_at = now + self._dead_retention_ms
        key = dead_prefix(queue.number) + u64(self._meta.next_seq(changes))
        changes.writes[key] = encode_row(DeadRow(now, expires_at, reason, record))
        changes.writes[TASK + task.id] = key
        self._retention.note(task.id, expires_at, changes)
        self._waiters.tell(
            TaskResult(
                task.id, _DEAD, Timestamp(now), None, reason, failure,
                task.attempts, task.losses, task.spec.codec,
            ),
            changes,
        )  # fmt: skip

    def _leave(self, task: QueuedTask, changes: Changes) -> None:
        self._leases.end(task, changes)
        changes.writes[task.key] = None
        queue = task.flow.queue
        queue.row.pending -= 1
        self._queues.touch(queue)

    def _keep(self, task: QueuedTask | TaskRecord, outcome: TaskResult, changes: Changes) -> None:
        spec = task.spec
        if spec.result_ttl_ms:
            expires_at = outcome.finished_at + spec.result_ttl_ms
            changes.writes[TASK + task.id] = ended_value(
                EndedRow(
                    expires_at,
                    spec.name,
                    spec.queue,
                    spec.priority,
                    task.enqueued_at,
                    task.generation,
                    outcome,
                )
            )
            self._retention.note(task.id, expires_at, changes)
        else:
            changes.writes[TASK + task.id] = None
        self._waiters.tell(outcome, changes)


def _after(command: Settle, count: int) -> Settle | None:
    """Return what is left of *command* after its first *count* outcomes."""
    done = len(command.done)
    if count >= done + len(command.failed):
        return None
    return Settle(command.session, command.done[count:], command.failed[max(0, count - done) :])
