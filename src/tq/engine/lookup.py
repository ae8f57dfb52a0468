"""Lookup: what the queue tells about tasks that are named, without changing anything.

Invariant: an answer that would be longer than a frame is refused before more than that is read.
"""

from tq.core.errors import BatchTooLarge, InvalidArgument
from tq.core.ids import ID_BYTES, format_id
from tq.core.lifecycle import TaskState
from tq.core.limits import ANSWER_BYTES_MAX, REQUEST_IDS_MAX
from tq.core.outcome import TaskResult
from tq.core.task import TaskView
from tq.core.times import Timestamp
from tq.engine.changes import Changes
from tq.engine.leases import Leases
from tq.engine.pages import Room
from tq.engine.queues import Queues
from tq.engine.rows import (
    DEAD,
    DUE,
    ENDED,
    TASK,
    DeadRow,
    decode_dead,
    decode_ended,
    decode_record,
    due_of,
    flow_of,
    split_scheduled,
)
from tq.engine.views import (
    VIEW_BYTES,
    result_of_dead,
    view_of_dead,
    view_of_ended,
    view_of_record,
    view_of_running,
)
from tq.engine.waiters import Waiters
from tq.engine.workers import Workers

_ID_BYTES = 18


class Lookup:
    """Answers `Get` and `Wait`."""

    def __init__(self, queues: Queues, leases: Leases, workers: Workers, waiters: Waiters) -> None:
        self._queues = queues
        self._leases = leases
        self._workers = workers
        self._waiters = waiters

    def get(self, ids: list[bytes], changes: Changes) -> list[TaskView | None]:
        """Return a view of each of *ids*, None for the unknown.

        Raises:
            BatchTooLarge: These are too many, or their results too long for one answer; ask for fewer.
        """
        check_ids(ids)
        views: list[TaskView | None] = []
        room = Room()
        for task_id in ids:
            view, row_bytes = self._view(task_id, changes)
            _take(room, row_bytes + VIEW_BYTES, len(views) + 1, len(ids))
            views.append(view)
        return views

    def wait(self, ids: list[bytes], connection: int, changes: Changes) -> tuple[list[TaskResult], list[bytes]]:
        """Return the results of those that have ended and the unknown ids; *connection* waits for the others.

        Raises:
            BatchTooLarge: As for `get`; *connection* waits for none of these.
            Overloaded: There are too many waits.
        """
        check_ids(ids)
        ended: list[TaskResult] = []
        unknown: list[bytes] = []
        unfinished: list[bytes] = []
        room = Room()
        for task_id in ids:
            place = changes.get(TASK + task_id)
            if place is None or self._purged(place, task_id, changes):
                unknown.append(task_id)
                size = _ID_BYTES
            elif place.startswith(ENDED):
                ended.append(decode_ended(place).outcome)
                size = len(place)
            elif place.startswith(DEAD):
                row, size = self._dead(place, changes)
                ended.append(result_of_dead(row))
            else:
                unfinished.append(task_id)
                continue
            _take(room, size, len(ended) + len(unknown), len(ids))
        self._waiters.add(unfinished, connection)
        return ended, unknown

    # ------------------------------------------------------------------ one task

    def _view(self, task_id: bytes, changes: Changes) -> tuple[TaskView | None, int]:
        """Return a view of the task, and how many bytes of it are not the same for all."""
        place = changes.get(TASK + task_id)
        if place is None or self._purged(place, task_id, changes):
            return None, 0
        if place.startswith(ENDED):
            return view_of_ended(decode_ended(place)), len(place)
        if place.startswith(DEAD):
            row, row_bytes = self._dead(place, changes)
            return view_of_dead(row), row_bytes
        running = self._leases.running.get(task_id)
        if running is not None:
            return view_of_running(running, self._workers)
        value = changes.get(place)
        assert value is not None, "an id row points to a row that exists"
        if place.startswith(DUE):
            record, due_at = decode_record(split_scheduled(value)[2]), Timestamp(due_of(place))
            return view_of_record(record, TaskState.SCHEDULED, due_at=due_at), len(value) - len(record.payload)
        record = decode_record(value)
        return view_of_record(record, TaskState.READY), len(value) - len(record.payload)

    def _purged(self, place: bytes, task_id: bytes, changes: Changes) -> bool:
        """Tell whether a purge has dropped the task, whose rows may still be there."""
        if place.startswith(DUE):
            value = changes.get(place)
            assert value is not None, "an id row points to a row that exists"
            number, generation, _ = split_scheduled(value)
        elif place.startswith((ENDED, DEAD)) or task_id in self._leases.running:
            return False
        else:
            flow = flow_of(place)
            number, generation = flow.queue, flow.generation
        return generation != self._queues.numbered(number).row.generation

    @staticmethod
    def _dead(place: bytes, changes: Changes) -> tuple[DeadRow, int]:
        value = changes.get(place)
        assert value is not None, "an id row points to a dead letter that exists"
        row = decode_dead(value)
        return row, len(value) - len(row.record.payload)


def check_ids(ids: list[bytes]) -> None:
    """Make sure that these are ids, and no more than one request may name.

    Raises:
        BatchTooLarge, InvalidArgument: They are not.
    """
    if len(ids) > REQUEST_IDS_MAX:
        raise BatchTooLarge(f"{REQUEST_IDS_MAX} tasks a request at most; got {len(ids)}")
    for task_id in ids:
        if len(task_id) != ID_BYTES:
            raise InvalidArgument(f"a task id has {ID_BYTES} bytes; got {format_id(task_id)}")


def _take(room: Room, size: int, told: int, asked: int) -> None:
    if not room.take(size):
        raise BatchTooLarge(
            f"the answer for {told} of {asked} tasks has more than the {ANSWER_BYTES_MAX} bytes that are sent at most: "
            "ask for fewer at a time"
        )
