"""Cancel: withdrawing a task before it is delivered.

Invariant: a task that a worker holds is never cancelled here; it is refused.
"""

from tq.core.errors import ErrorCode
from tq.core.ids import format_id
from tq.core.lifecycle import Step, TaskState
from tq.engine.changes import Changes
from tq.engine.leases import Leases
from tq.engine.lookup import check_ids
from tq.engine.places import moves
from tq.engine.queues import Queues
from tq.engine.rows import (
    DEAD,
    DUE,
    ENDED,
    READY,
    TASK,
    decode_ended,
    decode_record,
    flow_of,
    seq_of,
    split_scheduled,
)
from tq.engine.settle import Settler


def cancel(
    ids: list[bytes], queues: Queues, leases: Leases, settler: Settler, now: int, changes: Changes
) -> list[tuple[bytes, str, str]]:
    """Cancel what of *ids* is ready or scheduled; returns the others as (id, code, text)."""
    check_ids(ids)
    refused: list[tuple[bytes, str, str]] = []
    for task_id in ids:
        place = changes.get(TASK + task_id)
        if place is None:
            refused.append((task_id, ErrorCode.TASK_NOT_FOUND.value, f"no task {format_id(task_id)}"))
        elif place.startswith((ENDED, DEAD)) or task_id in leases.running:
            state = _state(place)
            refused.append(
                (
                    task_id,
                    ErrorCode.WRONG_STATE.value,
                    f"task {format_id(task_id)} is {state.value}, not waiting",
                )
            )
        elif not _withdraw(place, queues, settler, now, changes):
            refused.append((task_id, ErrorCode.TASK_NOT_FOUND.value, f"task {format_id(task_id)} was purged"))
    return refused


def _state(place: bytes) -> TaskState:
    if place.startswith(ENDED):
        return decode_ended(place).outcome.state
    return TaskState.DEAD if place.startswith(DEAD) else TaskState.RUNNING


def _withdraw(place: bytes, queues: Queues, settler: Settler, now: int, changes: Changes) -> bool:
    """Cancel the task of the row at *place*; False if its queue was purged since it was written."""
    value = changes.get(place)
    assert value is not None, "an id row points to a row that exists"
    withdraw = _withdraw_scheduled if place.startswith(DUE) else _withdraw_ready
    return withdraw(place, value, queues, settler, now, changes)


@moves(TaskState.SCHEDULED, Step.CANCEL, deletes=(DUE,), writes=(ENDED,))
def _withdraw_scheduled(
    place: bytes, value: bytes, queues: Queues, settler: Settler, now: int, changes: Changes
) -> bool:
    number, generation, encoded = split_scheduled(value)
    queue = queues.numbered(number)
    if generation != queue.row.generation:
        return False
    queue.row.scheduled -= 1
    changes.writes[place] = None
    settler.cancelled(decode_record(encoded), queue, now, changes)
    return True


@moves(TaskState.READY, Step.CANCEL, deletes=(READY,), writes=(ENDED,))
def _withdraw_ready(place: bytes, value: bytes, queues: Queues, settler: Settler, now: int, changes: Changes) -> bool:
    flow_id = flow_of(place)
    queue = queues.numbered(flow_id.queue)
    if flow_id.generation != queue.row.generation:
        return False
    queue.row.pending -= 1
    queue.flows[flow_id].drop(seq_of(place))
    changes.writes[place] = None
    settler.cancelled(decode_record(value), queue, now, changes)
    return True
