"""Pages: the tasks in one state, as many at a time as fit one answer.

Invariant: a page fits a frame whatever its tasks are; it costs no more than the rows on it,
plus a bounded number that it skips, and for ready tasks a few rows of each flow of their
rank that may hold one of them.  Only the last page has no cursor, and each but one
that skipped all it looked at shows a task.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

from tq.core.errors import InvalidArgument
from tq.core.lifecycle import TaskState
from tq.core.limits import ANSWER_BYTES_MAX, PAGE_MAX
from tq.core.task import TaskView
from tq.core.times import Timestamp
from tq.engine.changes import Changes
from tq.engine.flows import Flow
from tq.engine.leases import Leases
from tq.engine.queues import Queue, Queues
from tq.engine.rows import (
    DEAD,
    DUE,
    dead_prefix,
    decode_dead,
    decode_record,
    due_of,
    id_in,
    key_end,
    seq_of,
    split_scheduled,
    u64,
)
from tq.engine.views import VIEW_BYTES, view_of_dead, view_of_record, view_of_running
from tq.engine.workers import Workers

# A page stops after so many rows, or so many bytes of them, even if few are told: others are of another queue, and
# payloads are read but not told.
_ROWS_LOOKED_AT_MAX = 5_000
_PAGE_BYTES_MAX = 4 << 20
# A line is read a row at first, then twice as many each time, up to this: of many lines of one priority most show
# few tasks on this page.
_LINE_ROWS = 100
_LINE_BYTES = 256 * 1_024

_Page = tuple[list[TaskView], bytes | None]


class Room:
    """What is left of one answer, which must fit a frame."""

    def __init__(self) -> None:
        self._left: int | None = None

    def take(self, size: int) -> bool:
        """Take *size* bytes; return False, and take none, if they are not left.  The first always fit."""
        left = ANSWER_BYTES_MAX if self._left is None else self._left
        if self._left is not None and size > left:
            return False
        self._left = max(left - size, 0)
        return True


class Read:
    """How many bytes of rows a page has read so far, shown or not."""

    def __init__(self) -> None:
        self.size = 0


class Pages:
    """Answers `ListTasks`."""

    def __init__(self, queues: Queues, leases: Leases, workers: Workers) -> None:
        self._queues = queues
        self._leases = leases
        self._workers = workers

    def page(self, state: str, queue_name: str | None, limit: int, cursor: bytes | None, changes: Changes) -> _Page:
        """Return up to *limit* tasks in *state*, and the cursor of the next page, None after the last.

        Raises:
            InvalidArgument: The state cannot be listed, or limit or cursor are wrong.
            QueueNotFound: There is no queue of that name.
        """
        check_limit(limit)
        queue = self._queues.named(queue_name) if queue_name is not None else None
        cursor = cursor or b""
        match state:
            case "ready":
                return self._ready(queue, limit, cursor, changes)
            case "running":
                return self._running(queue, limit, cursor)
            case "scheduled":
                return self._scheduled(queue, limit, cursor, changes)
            case "dead":
                return self._dead(queue, limit, cursor, changes)
            case _:
                raise InvalidArgument(
                    f"tasks can be listed by state ready, running, scheduled, dead; got {state[:40]!r}"
                )

    def _ready(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        """Queue by queue, in each by priority, then by seq.  The cursor is queue u32, rank u8, seq u64."""
        start = numbers_in(cursor, (4, 1, 8)) if cursor else (0, 0, 0)
        views: list[TaskView] = []
        room, read, free = Room(), Read(), 0
        for each in [queue] if queue else list(self._queues.all()):
            if each.number < start[0]:
                continue
            rank_from, seq_from = start[1:] if each.number == start[0] else (0, 0)
            for rank, seq, value in self._ready_rows(each, rank_from, seq_from, read, changes):
                record = decode_record(value)
                size = len(value) - len(record.payload) + VIEW_BYTES
                if not views:
                    # To find the first takes a row of each line: the next page would read no less.
                    free = read.size
                if len(views) == limit or read.size - free >= _PAGE_BYTES_MAX or not room.take(size):
                    return views, each.number.to_bytes(4, "big") + bytes((rank,)) + u64(seq)
                views.append(view_of_record(record, TaskState.READY))
        return views, None

    def _ready_rows(
        self, queue: Queue, rank: int, seq: int, read: Read, changes: Changes
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield what waits as (rank, seq, value), from (*rank*, *seq*); a line is read once it may have the next."""
        for at in sorted({flow.rank for flow in queue.flows.values() if flow.rank >= rank}):
            flows = [flow for flow in queue.flows.values() if flow.rank == at]
            # A seek from before the floor would walk over all that is gone.
            starts = [max(seq if at == rank else 0, flow.floor) for flow in flows]
            lines = [self._line(flow, start, read, changes) for flow, start in zip(flows, starts, strict=True)]
            # Each line with the seq of its next row, or with one that this is not below while it has not been read.
            heap: list[tuple[int, int, bytes | None]] = [(start, index, None) for index, start in enumerate(starts)]
            heapify(heap)
            while heap:
                number, index, value = heap[0]
                if value is not None:
                    yield at, number, value
                    heapreplace(heap, (number + 1, index, None))
                elif (row := next(lines[index], None)) is not None:
                    heapreplace(heap, (row[0], index, row[1]))
                else:
                    heappop(heap)

    def _line(self, flow: Flow, seq: int, read: Read, changes: Changes) -> Iterator[tuple[int, bytes]]:
        running = self._leases.running
        start, end = flow.prefix + u64(seq), key_end(flow.prefix)
        count = 1
        while rows := changes.scan(start, end, count, _LINE_BYTES):
            read.size += sum(len(key) + len(value) for key, value in rows)
            for key, value in rows:
                under_lease = running.get(id_in(value))
                if under_lease is None or under_lease.key != key:
                    yield seq_of(key), value
            start = rows[-1][0] + b"\0"
            count = min(2 * count, _LINE_ROWS)

    def _running(self, queue: Queue | None, limit: int, cursor: bytes) -> _Page:
        """By token, then by index: the order in which they were handed out."""
        token, index = numbers_in(cursor, (8, 4)) if cursor else (0, -1)
        views: list[TaskView] = []
        room, read = Room(), 0
        for looked_at, (at, number, task) in enumerate(self._leases.handed_out_after(token, index)):
            if len(views) == limit or looked_at == _ROWS_LOOKED_AT_MAX or read >= _PAGE_BYTES_MAX:
                return views, u64(token) + index.to_bytes(4, "big")
            if queue is None or task.flow.queue is queue:
                view, size = view_of_running(task, self._workers)
                if not room.take(size + VIEW_BYTES):
                    return views, u64(token) + index.to_bytes(4, "big")
                read += len(task.record)
                views.append(view)
            token, index = at, number
        return views, None

    def _scheduled(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        start = _after(cursor, DUE)
        views: list[TaskView] = []
        room, looked_at, read = Room(), 0, 0
        while looked_at < _ROWS_LOOKED_AT_MAX and read < _PAGE_BYTES_MAX:
            rows = changes.scan(start, key_end(DUE + b"\xff" * 8), limit, _PAGE_BYTES_MAX - read)
            if not rows:
                return views, None
            for key, value in rows:
                looked_at += 1
                read += len(key) + len(value)
                number, generation, packed = split_scheduled(value)
                owner = self._queues.numbered(number)
                if generation == owner.row.generation and (queue is None or owner is queue):
                    record = decode_record(packed)
                    if not room.take(len(packed) - len(record.payload) + VIEW_BYTES):
                        return views, start[:-1]
                    views.append(view_of_record(record, TaskState.SCHEDULED, due_at=Timestamp(due_of(key))))
                if len(views) == limit:
                    return views, key
                start = key + b"\0"
        return views, start[:-1]

    def _dead(self, queue: Queue | None, limit: int, cursor: bytes, changes: Changes) -> _Page:
        prefix = dead_prefix(queue.number) if queue else DEAD
        end = key_end(prefix if queue else DEAD + b"\xff" * 8)
        views: list[TaskView] = []
        room, last = Room(), None
        for key, value in changes.scan(_after(cursor, prefix), end, limit, _PAGE_BYTES_MAX):
            row = decode_dead(value)
            if not room.take(len(value) - len(row.record.payload) + VIEW_BYTES):
                break
            views.append(view_of_dead(row))
            last = key
        return views, last


def _after(cursor: bytes, prefix: bytes) -> bytes:
    if not cursor:
        return prefix
    if not cursor.startswith(prefix):
        raise InvalidArgument(f"not a cursor of this list: {cursor.hex()[:80]}")
    return cursor + b"\0"


def check_limit(limit: int | None) -> None:
    """Make sure that a page may have *limit* entries; None is for no page.

    Raises:
        InvalidArgument: It may not.
    """
    if limit is not None and not 1 <= limit <= PAGE_MAX:
        raise InvalidArgument(f"limit must be 1 to {PAGE_MAX}; got {limit}")


def numbers_in(cursor: bytes, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of *sizes* bytes that *cursor* consists of.

    Raises:
        InvalidArgument: It is longer or shorter.
    """
    if len(cursor) != sum(sizes):
        raise InvalidArgument(f"not a cursor of this list: {cursor.hex()[:80]}")
    numbers, at = [], 0
    for size in sizes:
        numbers.append(int.from_bytes(cursor[at : at + size], "big"))
        at += size
    return tuple(numbers)
