"""Lookup: what the queue tells about tasks, without changing anything.

Invariant: a page costs no more than the rows on it, plus a bounded number that it skips.
"""

from heapq import merge

import msgspec

from tq.core.errors import BatchTooLarge, InvalidArgument
from tq.core.ids import ID_BYTES, format_id
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.priority import Priority
from tq.core.task import TaskRecord, TaskView
from tq.core.times import Timestamp
from tq.engine.changes import Changes
from tq.engine.flows import QueuedTask
from tq.engine.leases import Leases
from tq.engine.queues import Queue, Queues
from tq.engine.rows import (
    DEAD,
    DUE,
    ENDED,
    TASK,
    DeadRow,
    EndedRow,
    dead_prefix,
    decode_dead,
    decode_ended,
    decode_record,
    due_of,
    flow_of,
    id_in,
    key_end,
    seq_of,
    split_scheduled,
    u64,
)
from tq.engine.waiters import Waiters
from tq.engine.workers import Workers

IDS_MAX = 1_000
PAGE_MAX = 1_000
# A page stops after so many rows even if few of them are of the queue asked for.
_ROWS_LOOKED_AT_MAX = 5_000
_PAGE_BYTES_MAX = 4 << 20

_Page = tuple[list[TaskView], bytes | None]


class Lookup:
    """Answers `Get`, `Wait` and `ListTasks`."""

    def __init__(self, queues: Queues, leases: Leases, workers: Workers, waiters: Waiters) -> None:
        self._queues = queues
        self._leases = leases
        self._workers = workers
        self._waiters = waiters

    def get(self, ids: list[bytes], changes: Changes) -> list[TaskView | None]:
        """Return a view of each of *ids*, None for the unknown."""
        check_ids(ids)
        return [self._view(task_id, changes) for task_id in ids]

    def wait(self, ids: list[bytes], connection: int, changes: Changes) -> tuple[list[TaskResult], list[bytes]]:
        """Return the results of those that have ended and the unknown ids; *connection* waits for the others."""
        check_ids(ids)
        ended: list[TaskResult] = []
        unknown: list[bytes] = []
        unfinished: list[bytes] = []
        for task_id in ids:
            place = changes.get(TASK + task_id)
            if place is None or self._purged(place, task_id, changes):
                unknown.append(task_id)
            elif place.startswith(ENDED):
                ended.append(decode_ended(place).outcome)
            elif place.startswith(DEAD):
                ended.append(_result_of_dead(self._dead(place, changes)))
            else:
                unfinished.append(task_id)
        self._waiters.add(unfinished, connection)
        return ended, unknown

    def page(self, state: str, queue_name: str | None, limit: int, cursor: bytes | None, changes: Changes) -> _Page:
        """Return up to *limit* tasks in *state*, and the cursor of the next page, None after the last.

        Raises:
            InvalidArgument: The state cannot be listed, or limit or cursor are wrong.
            QueueNotFound: There is no queue of that name.
        """
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidArgument(f"limit must be 1 to {PAGE_MAX}; got {limit}")
        queue = self._queues.named(queue_name) if queue_name is not None else None
        cursor = cursor or b""
        match state:
            case "ready":
                return self._ready_page(queue, limit, cursor, changes)
            case "running":
                return self._running_page(queue, limit, cursor)
            case "scheduled":
                return self._scheduled_page(queue, limit, cursor, changes)
            case "dead":
                return self._dead_page(queue, limit, cursor, changes)
            case _:
                raise InvalidArgument(
                    f"tasks can be listed by state ready, running, scheduled, dead; got {state[:40]!r}"
                )

    # ------------------------------------------------------------------ one task

    def _view(self, task_id: bytes, changes: Changes) -> TaskView | None:
        place = changes.get(TASK + task_id)
        if place is None or self._purged(place, task_id, changes):
            return None
        if place.startswith(ENDED):
            return _view_of_ended(decode_ended(place))
        if place.startswith(DEAD):
            return _view_of_dead(self._dead(place, changes))
        if place.startswith(DUE):
            value = changes.get(place)
            assert value is not None, "an id row points to a row that exists"
            return _view_of_record(
                decode_record(split_scheduled(value)[2]), TaskState.SCHEDULED, due_at=Timestamp(due_of(place))
            )
        running = self._leases.running.get(task_id)
        if running is not None:
            return self._view_of_running(running)
        value = changes.get(place)
        assert value is not None, "an id row points to a row that exists"
        return _view_of_record(decode_record(value), TaskState.READY)

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

    def _view_of_running(self, task: QueuedTask) -> TaskView:
        assert task.lease is not None, "a running task is under a lease"
        worker = self._workers.get(task.lease.session)
        return _view_of_record(
            decode_record(task.record),
            TaskState.RUNNING,
            worker=worker.info.name if worker else task.lease.session.hex(),
            started=bool(task.started_at),
        )

    @staticmethod
    def _dead(place: bytes, changes: Changes) -> DeadRow:
        value = changes.get(place)
        assert value is not None, "an id row points to a dead letter that exists"
        return decode_dead(value)

    # ------------------------------------------------------------------ pages

    def _ready_page(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        """Queue by queue, in each by priority, then by seq.  The cursor is queue u32, rank u8, seq u64."""
        start = _numbers(cursor, (4, 1, 8)) if cursor else (0, 0, 0)
        queues = [queue] if queue else list(self._queues.all())
        views: list[TaskView] = []
        for each in queues:
            if each.number < start[0]:
                continue
            at = start if each.number == start[0] else (each.number, 0, 0)
            for rank, seq, value in self._ready_rows(each, at[1], at[2], limit + 1 - len(views), changes):
                if len(views) == limit:
                    return views, each.number.to_bytes(4, "big") + bytes((rank,)) + u64(seq)
                views.append(_view_of_record(decode_record(value), TaskState.READY))
        return views, None

    def _ready_rows(
        self, queue: Queue, rank: int, seq: int, count: int, changes: Changes
    ) -> list[tuple[int, int, bytes]]:
        found: list[tuple[int, int, bytes]] = []
        ranks = sorted({flow.rank for flow in queue.flows.values() if flow.rank >= rank})
        for at in ranks:
            lines = [
                # A seek from before the floor would walk over all that is gone.
                self._flow_rows(flow.prefix, max(seq if at == rank else 0, flow.floor), count, changes)
                for flow in queue.flows.values()
                if flow.rank == at
            ]
            found += [(at, *row) for row in merge(*lines)]
            if len(found) >= count:
                break
        return found[:count]

    def _flow_rows(self, prefix: bytes, seq: int, count: int, changes: Changes) -> list[tuple[int, bytes]]:
        running = self._leases.running
        found: list[tuple[int, bytes]] = []
        start, end = prefix + u64(seq), key_end(prefix)
        while len(found) < count:
            rows = changes.scan(start, end, count, _PAGE_BYTES_MAX)
            if not rows:
                break
            for key, value in rows:
                under_lease = running.get(id_in(value))
                if under_lease is None or under_lease.key != key:
                    found.append((seq_of(key), value))
            start = rows[-1][0] + b"\0"
        return found

    def _running_page(self, queue: Queue | None, limit: int, cursor: bytes) -> _Page:
        """By token, then by index: the order in which they were handed out."""
        after = _numbers(cursor, (8, 4)) if cursor else (0, -1)
        tasks = sorted(
            (
                (task.lease.token, task.index, task)
                for task in self._leases.running.values()
                if task.lease is not None and (queue is None or task.flow.queue is queue)
            ),
            key=lambda entry: entry[:2],
        )
        rest = [entry for entry in tasks if entry[:2] > after]
        views = [self._view_of_running(task) for _, _, task in rest[:limit]]
        if len(rest) <= limit:
            return views, None
        token, index, _ = rest[limit - 1]
        return views, u64(token) + index.to_bytes(4, "big")

    def _scheduled_page(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        start = _after(cursor, DUE)
        views: list[TaskView] = []
        looked_at = 0
        while looked_at < _ROWS_LOOKED_AT_MAX:
            rows = changes.scan(start, key_end(DUE + b"\xff" * 8), limit, _PAGE_BYTES_MAX)
            if not rows:
                return views, None
            for key, value in rows:
                looked_at += 1
                start = key + b"\0"
                number, generation, record = split_scheduled(value)
                owner = self._queues.numbered(number)
                if generation == owner.row.generation and (queue is None or owner is queue):
                    due_at = Timestamp(due_of(key))
                    views.append(_view_of_record(decode_record(record), TaskState.SCHEDULED, due_at=due_at))
                if len(views) == limit:
                    return views, key
        return views, start[:-1]

    def _dead_page(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        prefix = dead_prefix(queue.number) if queue else DEAD
        start = _after(cursor, prefix)
        end = key_end(prefix if queue else DEAD + b"\xff" * 8)
        rows = changes.scan(start, end, limit, _PAGE_BYTES_MAX)
        views = [_view_of_dead(decode_dead(value)) for _, value in rows]
        return views, rows[-1][0] if rows else None


def check_ids(ids: list[bytes]) -> None:
    """Make sure that these are ids, and no more than one request may name.

    Raises:
        BatchTooLarge, InvalidArgument: They are not.
    """
    if len(ids) > IDS_MAX:
        raise BatchTooLarge(f"{IDS_MAX} tasks a request at most; got {len(ids)}")
    for task_id in ids:
        if len(task_id) != ID_BYTES:
            raise InvalidArgument(f"a task id has {ID_BYTES} bytes; got {format_id(task_id)}")


def _after(cursor: bytes, prefix: bytes) -> bytes:
    if not cursor:
        return prefix
    if not cursor.startswith(prefix):
        raise InvalidArgument(f"not a cursor of this list: {cursor.hex()[:80]}")
    return cursor + b"\0"


def _numbers(cursor: bytes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    if len(cursor) != sum(sizes):
        raise InvalidArgument(f"not a cursor of this list: {cursor.hex()[:80]}")
    numbers, at = [], 0
    for size in sizes:
        numbers.append(int.from_bytes(cursor[at : at + size], "big"))
        at += size
    return tuple(numbers)


def _view_of_record(
    record: TaskRecord,
    state: TaskState,
    *,
    due_at: Timestamp | None = None,
    worker: str | None = None,
    started: bool = False,
) -> TaskView:
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


def _view_of_ended(row: EndedRow) -> TaskView:
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


def _view_of_dead(row: DeadRow) -> TaskView:
    view = _view_of_record(row.record, TaskState.DEAD)
    return msgspec.structs.replace(view, finished_at=Timestamp(row.died_at), reason=row.reason.value)


def _result_of_dead(row: DeadRow) -> TaskResult:
    record = row.record
    return TaskResult(
        record.id, TaskState.DEAD, Timestamp(row.died_at), None, row.reason, record.last_failure,
        record.attempts, record.losses, record.spec.codec,
    )  # fmt: skip
