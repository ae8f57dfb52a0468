"""A store in this process's memory: for `App("memory:")` and for tests.

Invariant: a commit is complete when it returns, so that there never is one in flight;
nothing outlives the process.
"""

from collections.abc import Awaitable, Mapping
from pathlib import Path

from sortedcontainers import SortedDict

from tq.core.errors import StoreError
from tq.core.limits import SCAN_BYTES_MAX
from tq.store.base import DONE, Commit, Health


class MemoryStore:
    """A sorted dict under the contract of `tq.store.base.Store`."""

    def __init__(self, rows: Mapping[bytes, bytes] | None = None) -> None:
        self._rows: SortedDict[bytes, bytes] = SortedDict(rows or {})
        self._is_closed = False

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None where there is no such row."""
        self._check_open()
        return self._rows.get(key)

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return the rows of a range; see `tq.store.base.Store.scan`."""
        self._check_open()
        found: list[tuple[bytes, bytes]] = []
        if limit <= 0 or end <= start:
            return found
        size = 0
        for key in self._rows.irange(start, end, inclusive=(True, False)):
            value = self._rows[key]
            found.append((key, value))
            size += len(key) + len(value)
            if len(found) >= limit or size >= bytes_max:
                break
        return found

    def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        """Apply *writes*; they are as durable as they will ever be."""
        self._check_open()
        for key, value in writes.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        return DONE

    def snapshot(self, directory: Path) -> None:
        """Refuse: there are no files to copy."""
        raise StoreError(f"a store in memory cannot write a snapshot to {directory}; keep the data on disk")

    def reclaim(self, start: bytes, end: bytes) -> None:
        """Do nothing: a deleted row takes no room."""

    def health(self) -> Health:
        """Return that all is well."""
        return Health(
            kind="memory",
            durability=None,
            disk_free_bytes=None,
            is_write_stopped=False,
            is_write_delayed=False,
            failure=None,
        )

    def close(self) -> None:
        """Drop the rows."""
        self._is_closed = True
        self._rows.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("the store in memory is closed")
