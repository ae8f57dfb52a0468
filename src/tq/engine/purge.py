"""Purge: how a task that waits is dropped with the rest of its purged queue.

It is gone at once for whoever asks, by its generation; here its rows go.  Invariant: who
waits for it is told in the batch that deletes them.  One that is held goes, if it comes
back without an outcome, by `tq.engine.settle`.
"""

from tq.core.lifecycle import Step, TaskState
from tq.core.outcome import TaskResult
from tq.core.times import Timestamp
from tq.engine.changes import Changes
from tq.engine.places import moves
from tq.engine.rows import DUE, READY, TASK
from tq.engine.waiters import Waiters


@moves(TaskState.READY, Step.PURGE, deletes=(READY,))
def purge_ready(key: bytes, task_id: bytes, waiters: Waiters, now: int, changes: Changes) -> None:
    """Drop a task of the ready row at *key*, which nobody holds."""
    _drop(key, task_id, waiters, now, changes)


@moves(TaskState.SCHEDULED, Step.PURGE, deletes=(DUE,))
def purge_scheduled(key: bytes, task_id: bytes, waiters: Waiters, now: int, changes: Changes) -> None:
    """Drop a task of the due row at *key*."""
    _drop(key, task_id, waiters, now, changes)


def _drop(key: bytes, task_id: bytes, waiters: Waiters, now: int, changes: Changes) -> None:
    changes.writes[key] = None
    changes.writes[TASK + task_id] = None
    waiters.tell(TaskResult(task_id, TaskState.CANCELLED, Timestamp(now)), changes)
