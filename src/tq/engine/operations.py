"""Operations: acts on more tasks than one change may hold, done slice by slice.

An operation is a row with a cursor; each slice moves the cursor in the batch that does
the slice's work, so a crash costs nothing and repeats nothing.  A purge takes effect at
once all the same: it bumps the queue's generation, which is part of every ready key and
of every due row.  What workers hold then is left to them (docs/operations.md says how long).

Invariant: an operation only touches rows that existed when it was asked for, or when
another that it does the work of was.  To begin one writes a row for each range it is to
walk, however much is in them.  A walk over the timeline drops what any purge left there:
the purges asked for before it began need none of their own.
"""

from collections.abc import Callable

import msgspec

from tq.core.errors import BatchTooLarge, TaskNotFound, WrongState
from tq.core.ids import format_id
from tq.core.lifecycle import Step, TaskState
from tq.core.limits import CHANGE_BYTES_MAX
from tq.engine.changes import EMPTIED_BYTES_MIN, Changes, Emptied, Reader, all_rows, within
from tq.engine.enqueue import put_ready
from tq.engine.lookup import check_ids
from tq.engine.meta import Meta
from tq.engine.places import moves
from tq.engine.purge import purge_ready, purge_scheduled
from tq.engine.queues import Queue, Queues
from tq.engine.rows import (
    DEAD,
    DUE,
    FLOW,
    OPERATION,
    READY,
    TASK,
    OperationRow,
    dead_prefix,
    decode_dead,
    decode_operation,
    encode_row,
    generation_prefix,
    id_in,
    key_end,
    queue_of_dead,
    seq_of,
    split_scheduled,
    u64,
)
from tq.engine.timeline import Timeline
from tq.engine.waiters import Waiters

# What a tick does of each kind: due and lost tasks, an operation's slice and expiries together are one bounded change.
SLICE_ROWS = 400
SLICE_BYTES = 96 * 1024
_EMPTIED_MAX = 100
# Besides its record a redriven task takes three keys, one of them twice, and perhaps a flow's row.
_TASK_BYTES = 128
# The rest of a flow key after the generation: rank, name, key; and of a ready key besides: seq.
_AFTER_GENERATION = b"\xff" * 16
_TIMELINE_END = key_end(DUE + b"\xff" * 8)
# A cursor of this length is where a walk over the timeline begins: one that has moved names a row.
_TIMELINE_START_BYTES = len(DUE + u64(0))
# The number that stands for all queues: theirs begin with 1.
_ALL_QUEUES = 0
_QUEUE_NUMBER_MAX = (1 << 32) - 1

_Row = tuple[bytes, bytes]


class Operations:
    """The operations under way, oldest first."""

    def __init__(self, meta: Meta, queues: Queues, timeline: Timeline, waiters: Waiters) -> None:
        self._meta = meta
        self._queues = queues
        self._timeline = timeline
        self._waiters = waiters
        self._open: dict[bytes, OperationRow] = {}
        # How many of them are purges of a queue, by its number: each queue on a page asks.
        self._purges: dict[int, int] = {}
        # What has been deleted since the store was last asked for its room; a restart forgets it.
        self._emptied: list[tuple[bytes, bytes]] = []
        self._emptied_bytes = 0
        # The same of due rows: they lie among those of other queues, so these are counted for themselves.
        self._emptied_due = Emptied()
        # Those that need no walk over the timeline once the one that is under way has ended; a restart forgets it.
        self._covered: set[bytes] = set()
        self._slices: dict[str, Callable[[OperationRow, list[_Row], int, Changes], None]] = {
            "purge": self._purge_slice,
            "redrive": self._redrive_slice,
            "forget": self._forget_slice,
        }

    def __len__(self) -> int:
        return len(self._open)

    def restore(self, reader: Reader) -> None:
        """Take up what was under way."""
        for key, value in all_rows(reader, OPERATION):
            self._add(key, decode_operation(value))

    def purging(self, queue: Queue) -> bool:
        """Whether rows of a purge of *queue* are still being removed."""
        return queue.number in self._purges

    def purge(self, queue: Queue, changes: Changes) -> int:
        """Drop all that is ready or scheduled in *queue*; returns how many tasks that is."""
        row = queue.row
        dropped = queue.ready + row.scheduled
        ranges = [
            (start, start + _AFTER_GENERATION)
            for start in (generation_prefix(letter, queue.number, row.generation) for letter in (READY, FLOW))
        ]
        if row.scheduled:
            # They wait among those of all other queues, which costs a walk over the timeline.
            ranges.append((DUE + u64(self._timeline.floor), _TIMELINE_END))
        for start, end in ranges:
            self._begin(OperationRow("purge", queue.number, row.generation, start, end), changes)
        row.generation += 1
        row.pending = queue.running_count
        row.scheduled = 0
        row.purged_total += dropped
        for flow in queue.flows.values():
            flow.abandon()
        queue.flows.clear()
        queue.suspects.clear()
        self._queues.touch(queue)
        return dropped

    def act_on_dead(self, kind: str, queues: list[Queue], now: int, changes: Changes) -> int:
        """Begin to redrive or forget all dead letters of *queues*; returns how many there are."""
        affected = sum(queue.row.dead for queue in queues)
        if affected:
            until = u64(self._meta.next_seq(changes))
            if len(queues) == 1:
                prefix = dead_prefix(queues[0].number)
                row = OperationRow(kind, queues[0].number, 0, prefix, prefix + until)
            else:
                row = OperationRow(kind, _ALL_QUEUES, 0, DEAD, dead_prefix(_QUEUE_NUMBER_MAX) + until)
            # Most often one slice is all there is; the rest is for the ticks to come.
            self._step(self._begin(row, changes), now, changes)
        return affected

    def act_on_ids(self, kind: str, ids: list[bytes], now: int, changes: Changes) -> int:
        """Redrive or forget the dead letters of *ids*, all or none.

        Raises:
            BatchTooLarge, TaskNotFound, WrongState: Nothing was changed.
        """
        check_ids(ids)
        rows: dict[bytes, bytes] = {}
        for task_id in ids:
            place = changes.get(TASK + task_id)
            if place is None:
                raise TaskNotFound(f"no task {format_id(task_id)}")
            value = changes.get(place) if place.startswith(DEAD) else None
            if value is None:
                raise WrongState(f"task {format_id(task_id)} is not in the dead letter")
            rows[place] = value
        size = sum(len(value) + _TASK_BYTES for value in rows.values())
        if size > CHANGE_BYTES_MAX and len(rows) > 1:
            raise BatchTooLarge(f"{CHANGE_BYTES_MAX} bytes of tasks a request at most; got {size}")
        one = self._redrive if kind == "redrive" else self._forget
        for key, value in rows.items():
            one(key, value, now, changes)
        return len(rows)

    def step(self, now: int, changes: Changes) -> int:
        """Do one slice of the oldest operation; returns how many bytes of tasks that may be."""
        for key in self._open:
            return self._step(key, now, changes)
        return 0

    def _begin(self, row: OperationRow, changes: Changes) -> bytes:
        key = OPERATION + u64(self._meta.next_seq(changes))
        self._add(key, row)
        changes.writes[key] = encode_row(row)
        return key

    def _add(self, key: bytes, row: OperationRow) -> None:
        self._open[key] = row
        if row.kind == "purge":
            self._purges[row.queue] = self._purges.get(row.queue, 0) + 1

    def _end(self, key: bytes, changes: Changes) -> None:
        row = self._open.pop(key)
        changes.writes[key] = None
        if row.kind == "purge":
            left = self._purges.pop(row.queue) - 1
            if left:
                self._purges[row.queue] = left

    def _step(self, key: bytes, now: int, changes: Changes) -> int:
        row = self._open[key]
        start = row.cursor
        if key in self._covered:
            # It is the oldest now, so the walk that covers it is over.
            self._covered.discard(key)
            self._end(key, changes)
            return 0
        if start.startswith(DUE):
            if len(start) == _TIMELINE_START_BYTES:
                self._covered = {
                    other for other, each in self._open.items() if other != key and each.cursor.startswith(DUE)
                }
            # What came due meanwhile is gone: a seek from before the floor would walk over it.
            start = max(start, DUE + u64(self._timeline.floor))
        rows = within(changes.scan(start, row.until, SLICE_ROWS, SLICE_BYTES), SLICE_BYTES)
        if not rows:
            self._end(key, changes)
            self._note_emptied(row, changes)
            return 0
        self._slices[row.kind](row, rows, now, changes)
        self._open[key] = moved = msgspec.structs.replace(row, cursor=rows[-1][0] + b"\0")
        changes.writes[key] = encode_row(moved)
        size = sum(len(value) for _, value in rows)
        if row.until.startswith((READY, DEAD)):
            self._emptied_bytes += size
        return size

    def _note_emptied(self, row: OperationRow, changes: Changes) -> None:
        """Note that *row* is done; once that is worth it, let the store free what such operations have deleted."""
        if row.until.startswith(READY):
            self._emptied.append((generation_prefix(READY, row.queue, row.generation), row.until))
        elif row.until.startswith(DEAD):
            self._emptied.append((dead_prefix(row.queue) if row.queue != _ALL_QUEUES else DEAD, row.until))
        else:
            self._emptied_due.ask(changes)
        if self._emptied_bytes >= EMPTIED_BYTES_MIN:
            changes.emptied += self._emptied
            self._emptied_bytes = 0
            self._emptied.clear()
        # A long list of small ones is worth no more than its end.
        del self._emptied[:-_EMPTIED_MAX]

    def _purge_slice(self, operation: OperationRow, rows: list[_Row], now: int, changes: Changes) -> None:
        queue = self._queues.numbered(operation.queue)
        for key, value in rows:
            if key.startswith(FLOW):
                changes.writes[key] = None
                continue
            if key.startswith(DUE):
                number, generation, encoded = split_scheduled(value)
                if generation >= self._queues.numbered(number).row.generation:
                    continue
                purge_scheduled(key, id_in(encoded), self._waiters, now, changes)
                self._emptied_due.note(key, key, len(value))
            else:
                task_id = id_in(value)
                running = queue.running.get(task_id)
                if running is not None and running.key == key:
                    continue
                purge_ready(key, task_id, self._waiters, now, changes)

    def _redrive_slice(self, operation: OperationRow, rows: list[_Row], now: int, changes: Changes) -> None:
        for key, value in _older(rows, operation):
            self._redrive(key, value, now, changes)

    def _forget_slice(self, operation: OperationRow, rows: list[_Row], now: int, changes: Changes) -> None:
        for key, value in _older(rows, operation):
            self._forget(key, value, now, changes)

    @moves(TaskState.DEAD, Step.REDRIVE, deletes=(DEAD,), writes=(READY,))
    def _redrive(self, key: bytes, value: bytes, now: int, changes: Changes) -> None:
        queue = self._queues.numbered(queue_of_dead(key))
        record = decode_dead(value).record
        record.generation += 1
        record.attempts = record.losses = 0
        record.last_failure = None
        changes.writes[key] = None
        queue.row.dead -= 1
        put_ready(self._meta, self._queues, queue, record, changes)

    @moves(TaskState.DEAD, Step.FORGET, deletes=(DEAD,))
    def _forget(self, key: bytes, value: bytes, now: int, changes: Changes) -> None:
        queue = self._queues.numbered(queue_of_dead(key))
        changes.writes[key] = None
        changes.writes[TASK + decode_dead(value).record.id] = None
        queue.row.dead -= 1
        queue.row.purged_total += 1
        self._queues.touch(queue)


def _older(rows: list[_Row], operation: OperationRow) -> list[_Row]:
    """Return the dead letters that were there when *operation* was asked for."""
    until = seq_of(operation.until)
    return [row for row in rows if seq_of(row[0]) < until]
