"""The timeline: tasks that wait for their time, in the order of it.

A due row holds the whole record: moving it to its queue is one deletion and two writes,
and nothing of it is in memory before.  Invariant: no due row lies before the floor;
``next_due`` is never later than the earliest row.
"""

from tq.core.task import TaskRecord
from tq.core.times import Timestamp
from tq.engine.changes import Changes, Reader, within
from tq.engine.meta import Meta, read_floor
from tq.engine.queues import Queue
from tq.engine.rows import (
    DUE,
    TASK,
    due_key,
    due_of,
    encode_record,
    key_end,
    scheduled_value,
    u64,
)

_END = key_end(DUE + b"\xff" * 8)
_FLOOR_ROWS = 4_096


class Timeline:
    """The due rows of all queues."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._floor = 0
        self._taken = 0
        self.next_due: int | None = None

    def restore(self, reader: Reader) -> None:
        """Find the floor and the earliest row."""
        self._floor = read_floor(reader, b"due")
        self._look_ahead(reader)

    @property
    def floor(self) -> int:
        """The instant before which nothing waits."""
        return self._floor

    def add(self, record: TaskRecord, queue: Queue, due: int, changes: Changes) -> Timestamp:
        """Let *record* wait until *due*; returns the instant it will be due."""
        # The floor only passes instants that are over: a due time before it is over too.
        due = max(due, self._floor)
        key = due_key(due, self._meta.next_seq(changes))
        changes.writes[key] = scheduled_value(queue.number, queue.row.generation, encode_record(record))
        changes.writes[TASK + record.id] = key
        queue.row.scheduled += 1
        if self.next_due is None or due < self.next_due:
            self.next_due = due
        return Timestamp(due)

    def take_due(self, now: int, limit: int, bytes_max: int, changes: Changes) -> list[tuple[bytes, bytes]]:
        """Remove and return the rows that are due, earliest first, up to *bytes_max*; the first in any case."""
        if self.next_due is None or self.next_due > now:
            return []
        rows = within(changes.scan(DUE + u64(self._floor), DUE + u64(now + 1), limit, bytes_max), bytes_max)
        for key, _ in rows:
            changes.writes[key] = None
        if rows:
            self._floor = due_of(rows[-1][0])
            self._taken += len(rows)
            if self._taken >= _FLOOR_ROWS:
                self._taken = 0
                self._meta.write(b"due", self._floor, changes)
        self._look_ahead(changes)
        return rows

    def _look_ahead(self, reader: Reader) -> None:
        first = reader.scan(DUE + u64(self._floor), _END, 1)
        self.next_due = due_of(first[0][0]) if first else None
