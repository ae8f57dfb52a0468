"""Changes: what a batch of commands writes, and what it lets out once that is durable.

Invariant: a read through `Changes` sees the batch being built, over everything
committed before it.  Nothing in the outward part (deliveries, results, revocations) may
leave the broker before the writes are committed.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import msgspec

from tq.core.limits import SCAN_BYTES_MAX
from tq.core.outcome import TaskResult

EMPTIED_BYTES_MIN = 16 << 20
"""The room of less than this need not be asked for: other writes free it in their time."""

_PAGE_ROWS = 1_000


class Reader(Protocol):
    """What the engine reads through: ordered bytes."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""
        ...

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return up to *limit* rows with start <= key < end, ascending.

        Stops after the row with which keys and values reach *bytes_max*.
        """
        ...


def all_rows(reader: Reader, letter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all rows whose keys start with *letter*, read page by page: for a restart, to be consumed at once."""
    start, end = letter, bytes((letter[0] + 1,))
    while rows := reader.scan(start, end, _PAGE_ROWS):
        yield from rows
        start = rows[-1][0] + b"\0"


def within(rows: list[tuple[bytes, bytes]], bytes_max: int) -> list[tuple[bytes, bytes]]:
    """Return *rows* without the last of them if they reach beyond *bytes_max* with it, but never none of them."""
    if len(rows) > 1 and sum(len(key) + len(value) for key, value in rows) > bytes_max:
        return rows[:-1]
    return rows


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """Records to push to a worker under a token."""

    session: bytes
    token: int
    alone: bool
    records: list[bytes]


class Revocation(msgspec.Struct, frozen=True, gc=False):
    """Leases that a worker no longer has: (token, index) pairs."""

    session: bytes
    tasks: list[tuple[int, int]]


class Ending(msgspec.Struct, frozen=True, gc=False):
    """A task's end, for the connection numbers that wait for it."""

    waiters: frozenset[int]
    result: TaskResult


class Changes:
    """One batch under construction.

    ``writes`` is what the store commits: key to value, or to None for a deletion.  A key
    that is in it stays in it while the batch is built.
    ``promised`` is set unless all of it may be lost by a crash, deliveries for one (a lost
    one is a lease that expires): only then need the commit not be synced.
    ``settled_bytes`` is what settles have written, at most: one that does not fit any more
    goes on in the next batch.
    ``emptied`` are ranges of keys of which much was deleted: the store may give the room back.
    ``expelled`` are the worker sessions that exist no more because their leases ran out.
    """

    __slots__ = (
        "_keys",
        "_reader",
        "deliveries",
        "emptied",
        "endings",
        "expelled",
        "expiring",
        "promised",
        "revocations",
        "settled_bytes",
        "writes",
    )

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.writes: dict[bytes, bytes | None] = {}
        # The keys of `writes`, sorted, as far as a scan has asked for them.
        self._keys: list[bytes] = []
        self.promised = False
        self.settled_bytes = 0
        self.deliveries: list[Delivery] = []
        self.revocations: list[Revocation] = []
        self.emptied: list[tuple[bytes, bytes]] = []
        self.expelled: list[bytes] = []
        self.endings: list[Ending] = []
        self.expiring: dict[int, list[bytes]] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key* as this batch sees it."""
        writes = self.writes
        return writes[key] if key in writes else self._reader.get(key)

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return rows as `Reader.scan`, as this batch sees them.

        A page may be shorter than asked for although more rows follow it, but it is empty
        only if none do.
        """
        mine = self._written(start, end) if self.writes else []
        if not mine:
            return self._reader.scan(start, end, limit, bytes_max)
        writes = self.writes
        while True:
            stored = self._reader.scan(start, end, limit, bytes_max)
            # Beyond the last stored row of a cut page there may be others that come before mine.
            whole = not stored or (len(stored) < limit and sum(len(k) + len(v) for k, v in stored) < bytes_max)
            horizon = end if whole else stored[-1][0] + b"\0"
            before = mine[: bisect_left(mine, horizon)]
            rows = _merge(stored, ((key, writes[key]) for key in before))
            if rows or whole:
                return rows[:limit]
            start = horizon

    def _written(self, start: bytes, end: bytes) -> list[bytes]:
        """Return the keys that this batch has written or deleted with start <= key < end, ascending."""
        keys = self._keys
        fresh = len(self.writes) - len(keys)
        if fresh:
            # None is ever taken out of the dict, and one that is written again keeps its place: the new are the last.
            keys += islice(reversed(self.writes), fresh)
            keys.sort()
        first = bisect_left(keys, start)
        return keys[first : bisect_left(keys, end, first)]


class Emptied:
    """A range of keys among which many were deleted, until the store is asked for their room; a restart forgets it."""

    __slots__ = ("_bytes", "_range")

    def __init__(self) -> None:
        self._range: tuple[bytes, bytes] | None = None
        self._bytes = 0

    def note(self, first: bytes, last: bytes, size: int) -> None:
        """Note that rows from key *first* to key *last*, *size* bytes of values, were deleted."""
        known_first, known_last = self._range or (first, last)
        self._range = min(known_first, first), max(known_last, last)
        self._bytes += size

    def ask(self, changes: Changes) -> None:
        """Let the store free what has been noted, if that is worth it."""
        if self._range is not None and self._bytes >= EMPTIED_BYTES_MIN:
            first, last = self._range
            changes.emptied.append((first, last + b"\0"))
            self._range, self._bytes = None, 0


def _merge(stored: list[tuple[bytes, bytes]], mine: Iterable[tuple[bytes, bytes | None]]) -> list[tuple[bytes, bytes]]:
    merged: dict[bytes, bytes | None] = dict(stored)
    merged.update(mine)
    return [(key, value) for key, value in sorted(merged.items()) if value is not None]
