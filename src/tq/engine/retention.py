"""Retention: forgetting ended tasks, dead letters and frame answers when their time is over.

Ids whose end may be forgotten at about the same second share one expiry row a batch, so
that keeping a result costs little more than its own row.  Invariant: an id row or a dead
letter is deleted only if it says itself that its time is over: a redriven task that has
ended again is kept for its new time.
"""

from tq.core.times import HOUR, MINUTE
from tq.engine.changes import Changes, Emptied, Reader
from tq.engine.meta import Meta, read_floor
from tq.engine.queues import Queues
from tq.engine.rows import (
    DEAD,
    ENDED,
    EXPIRY,
    FRAME,
    TASK,
    decode_dead,
    decode_ended,
    due_of,
    join_ids,
    key_end,
    queue_of_dead,
    split_ids,
    u64,
)

_EXPIRY_END = key_end(EXPIRY + b"\xff" * 8)
# Expiry times are rounded up to this, so that what ends within it shares a row.
_BUCKET_MS = 1_000
_FRAMES_EVERY_MS = 10_000
# The room of results is asked for when no more are forgotten for so long: as long as some are, other writes free it.
_CALM_MS = MINUTE
_FLOOR_ROWS = 256
IDS_PER_ROW_MAX = 1_000
# A slice: many rows of a few ids, as a busy broker of small batches writes them, or one or two full ones.
_SLICE_ROWS = 200
_SLICE_BYTES = 16 * IDS_PER_ROW_MAX


class Retention:
    """The expiry rows, and the frame rows, whose ids carry their time."""

    def __init__(self, meta: Meta, queues: Queues, frame_memory_ms: int) -> None:
        self._meta = meta
        self._queues = queues
        self._frame_memory_ms = frame_memory_ms
        self._floor = 0
        self._taken = 0
        self._frames_floor = 0
        self._frames_next = 0
        self._next: int | None = None
        self._emptied = Emptied()

    def restore(self, reader: Reader) -> None:
        """Find the floors and the earliest row."""
        self._floor = read_floor(reader, b"expiry")
        self._frames_floor = read_floor(reader, b"frames")
        self._look_ahead(reader)

    @staticmethod
    def note(task_id: bytes, expires_at: int, changes: Changes) -> None:
        """Look at *task_id* again at *expires_at*."""
        bucket = -(-expires_at // _BUCKET_MS) * _BUCKET_MS
        changes.expiring.setdefault(bucket, []).append(task_id)

    def write_noted(self, changes: Changes) -> None:
        """Write the expiry rows of this batch."""
        for bucket, ids in changes.expiring.items():
            at = max(bucket, self._floor)
            for start in range(0, len(ids), IDS_PER_ROW_MAX):
                key = EXPIRY + u64(at) + u64(self._meta.next_seq(changes))
                changes.writes[key] = join_ids(ids[start : start + IDS_PER_ROW_MAX])
            if self._next is None or at < self._next:
                self._next = at
        changes.expiring.clear()

    def next_at(self) -> int:
        """Return when `expire` has something to do next."""
        return self._frames_next if self._next is None else min(self._next, self._frames_next)

    def expire(self, now: int, changes: Changes) -> int:
        """Forget a slice of the ids whose time is over, and of old frame answers; it writes no tasks, so 0 bytes."""
        if self._next is not None and self._next <= now:
            self._expire_ids(now, changes)
        if self._frames_next <= now:
            self._expire_frames(now, changes)
        return 0

    def _expire_ids(self, now: int, changes: Changes) -> None:
        rows = changes.scan(EXPIRY + u64(self._floor), EXPIRY + u64(now + 1), _SLICE_ROWS, _SLICE_BYTES)
        for key, value in rows:
            ids = split_ids(value)
            freed = sum(self._forget(task_id, now, changes) for task_id in ids)
            self._emptied.note(TASK + min(ids), TASK + max(ids), freed)
            changes.writes[key] = None
            self._floor = due_of(key)
        self._taken += len(rows)
        if self._taken >= _FLOOR_ROWS:
            self._taken = 0
            self._meta.write(b"expiry", self._floor, changes)
        self._look_ahead(changes)
        if self._next is None or self._next > now + _CALM_MS:
            self._emptied.ask(changes)

    def _forget(self, task_id: bytes, now: int, changes: Changes) -> int:
        """Forget a task whose time is over; returns the bytes of its result, 0 if it had none or stays."""
        place = changes.get(TASK + task_id)
        if place is None:
            return 0
        if place.startswith(ENDED):
            if decode_ended(place).expires_at <= now:
                changes.writes[TASK + task_id] = None
                return len(place)
        elif place.startswith(DEAD):
            value = changes.get(place)
            assert value is not None, "an id row points to a dead letter that exists"
            if decode_dead(value).expires_at <= now:
                queue = self._queues.numbered(queue_of_dead(place))
                queue.row.dead -= 1
                self._queues.touch(queue)
                changes.writes[place] = None
                changes.writes[TASK + task_id] = None
        return 0

    def _expire_frames(self, now: int, changes: Changes) -> None:
        # A frame is refused once it is older than the memory; the second hour is for clocks that were corrected.
        over = max(0, now - self._frame_memory_ms - HOUR)
        rows = changes.scan(FRAME + _time(self._frames_floor), FRAME + _time(over), 1_000)
        for key, _ in rows:
            changes.writes[key] = None
        if rows:
            self._frames_floor = int.from_bytes(rows[-1][0][1:7], "big")
            self._meta.write(b"frames", self._frames_floor, changes)
        else:
            self._frames_next = now + _FRAMES_EVERY_MS

    def _look_ahead(self, reader: Reader) -> None:
        first = reader.scan(EXPIRY + u64(self._floor), _EXPIRY_END, 1)
        self._next = due_of(first[0][0]) if first else None


def _time(at: int) -> bytes:
    return at.to_bytes(6, "big")
