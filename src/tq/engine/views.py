"""Views: what is told of a task, made of the row that it stands in."""

import msgspec

from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.priority import Priority
from tq.core.task import TaskRecord, TaskView
from tq.core.times import Timestamp
from tq.engine.flows import QueuedTask
from tq.engine.rows import DeadRow, EndedRow, decode_record
from tq.engine.workers import Workers

# What a view takes besides the row that it is made of: the names of its fields, numbers.
VIEW_BYTES = 400


def view_of_record(
    record: TaskRecord,
    state: TaskState,
    *,
    due_at: Timestamp | None = None,
    worker: str | None = None,
    started: bool = False,
) -> TaskView:
    """Return a view of a task that has not ended."""
    spec = record.spec
    return TaskView(
        id=record.id,
        name=spec.name,
        queue=spec.queue,
        state=state,
        priority=Priority(spec.priority),
        enqueued_at=Timestamp(record.enqueued_at),
        due_at=due_at,
        generation=record.generation,
        attempts=record.attempts,
        losses=record.losses,
        max_attempts=spec.retry.max_attempts,
        timeout_ms=spec.timeout_ms,
        payload_bytes=len(record.payload),
        worker=worker,
        started=started,
        failure=record.last_failure,
        codec=spec.codec,
    )


def view_of_ended(row: EndedRow) -> TaskView:
    """Return a view of a task that has ended, but not as a dead letter."""
    outcome = row.outcome
    return TaskView(
        id=outcome.id,
        name=row.name,
        queue=row.queue,
        state=outcome.state,
        priority=Priority(row.priority),
        enqueued_at=Timestamp(row.enqueued_at),
        finished_at=outcome.finished_at,
        generation=row.generation,
        attempts=outcome.attempts,
        losses=outcome.losses,
        result=outcome.result,
        codec=outcome.codec,
    )


def view_of_dead(row: DeadRow) -> TaskView:
    """Return a view of a dead letter."""
    view = view_of_record(row.record, TaskState.DEAD)
    return msgspec.structs.replace(view, finished_at=Timestamp(row.died_at), reason=row.reason.value)


def result_of_dead(row: DeadRow) -> TaskResult:
    """Return how a dead letter ended, as it is told to who waits for it."""
    record = row.record
    return TaskResult(
        record.id, TaskState.DEAD, Timestamp(row.died_at), None, row.reason, record.last_failure,
        record.attempts, record.losses, record.spec.codec,
    )  # fmt: skip


def view_of_running(task: QueuedTask, workers: Workers) -> tuple[TaskView, int]:
    """Return a view of a running task, and how many bytes of it are not the same for all."""
    assert task.lease is not None, "a running task is under a lease"
    worker = workers.get(task.lease.session)
    name = worker.info.name if worker else task.lease.session.hex()
    record = decode_record(task.record)
    view = view_of_record(record, TaskState.RUNNING, worker=name, started=bool(task.started_at))
    return view, len(task.record) - len(record.payload) + 4 * len(name)
