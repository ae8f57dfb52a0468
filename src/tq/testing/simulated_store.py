"""A store that models a disk: what was written, what of it was synced, and what a crash leaves.

    rows       what `get` and `scan` see: every commit
    unsynced   the batches that were written but not yet synced, oldest first
    durable    the rows without those

Invariant: rows are the durable rows plus the unsynced batches in order. A crash keeps the
durable rows and the first so many unsynced batches, as a log on disk would; nothing reads
a clock, a sync takes the time that the injected scheduler gives it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from pathlib import Path

from tq.core.errors import StoreError
from tq.core.limits import SCAN_BYTES_MAX
from tq.store.base import DONE, Commit, Durability, Health
from tq.store.memory import MemoryStore

CallLater = Callable[[float, Callable[[], None]], object]
"""`loop.call_later`: run a callback after so many seconds."""

Batch = Mapping[bytes, bytes | None]


class Moment(Enum):
    """A boundary of a commit, at which a simulation may crash the broker."""

    WRITTEN = "written"
    """The batch is visible, and not durable."""
    SYNCED = "synced"
    """The batch is durable, and whoever awaits it does not know yet."""


class SimulatedStore:
    """A `tq.store.base.Store` on an imagined disk; a synced commit needs a running loop for its future.

    *sync_s* draws the seconds that one fsync takes. *watch* is called at each `Moment`, from
    within `commit` for the first and from the scheduler for the second; it may call `crash`.
    """

    def __init__(
        self,
        call_later: CallLater,
        *,
        rows: Mapping[bytes, bytes] | None = None,
        sync_s: Callable[[], float] = lambda: 0.000_2,
        watch: Callable[[Moment], None] | None = None,
    ) -> None:
        self._call_later = call_later
        self._sync_s = sync_s
        self._watch = watch
        self._durable: dict[bytes, bytes] = dict(rows or {})
        self._unsynced: deque[Batch] = deque()
        self._visible = MemoryStore(self._durable)
        self._in_flight: asyncio.Future[Commit] | None = None
        self._in_flight_batches = 0
        self._is_stalled = False
        self._is_sync_due = False
        self._next_failure: StoreError | None = None
        self._failure: StoreError | None = None
        self._is_crashed = False

    # What a store does ------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None where there is no such row."""
        self._check_alive()
        return self._visible.get(key)

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return the rows of a range; see `tq.store.base.Store.scan`."""
        self._check_alive()
        return self._visible.scan(start, end, limit, bytes_max)

    def commit(self, writes: Batch, *, sync: bool = True) -> Awaitable[Commit]:
        """Write a batch, and unless told otherwise sync it after the time that takes."""
        self._check_alive()
        if self._failure is not None:
            raise StoreError(f"no more commits since one failed: {self._failure}")
        assert self._in_flight is None, "a commit while one is in flight"
        batch = dict(writes)
        self._visible.commit(batch)
        self._unsynced.append(batch)
        done: Awaitable[Commit] = DONE
        if sync:
            self._in_flight = done = asyncio.get_running_loop().create_future()
            self._in_flight_batches = len(self._unsynced)
            self._call_later(self._sync_s(), self._sync_is_due)
        self._tell(Moment.WRITTEN)
        return done

    def snapshot(self, directory: Path) -> None:
        """Refuse: there are no files to copy."""
        raise StoreError(f"a simulated store cannot write a snapshot to {directory}")

    def reclaim(self, start: bytes, end: bytes) -> None:
        """Do nothing: a deleted row takes no room."""

    def health(self) -> Health:
        """Return a disk with room, and whether a commit has failed."""
        return Health(
            kind="simulated",
            durability=Durability.SYNC,
            disk_free_bytes=1 << 40,
            is_write_stopped=False,
            is_write_delayed=False,
            failure=None if self._failure is None else str(self._failure),
        )

    def close(self) -> None:
        """Sync what was written; the store takes no more calls."""
        if self._is_crashed:
            return
        if self._failure is None:
            self._make_durable(len(self._unsynced))
        self._is_crashed = True
        self._resolve(None)

    # What a simulation does to it -------------------------------------------------------------------------

    @property
    def unsynced(self) -> int:
        """How many batches a crash may lose."""
        return len(self._unsynced)

    def stall(self) -> None:
        """Let no sync end before `resume`: a disk that hangs."""
        self._is_stalled = True

    def resume(self) -> None:
        """End the stall; a sync that was due meanwhile ends now."""
        self._is_stalled = False
        if self._is_sync_due:
            self._sync_is_due()

    def fail_next_sync(self, failure: StoreError) -> None:
        """Let the sync in flight, or else the next one, fail with *failure*; the store is broken by it."""
        self._next_failure = failure

    def crash(self, *, keep: int = 0, watch: Callable[[Moment], None] | None = None) -> "SimulatedStore":
        """Stop this store for good and return the one that opens afterwards.

        It has the durable rows and the first *keep* of the unsynced batches, up to `unsynced`:
        the operating system may have written any number of them. A kill of the process
        alone keeps all of them. A commit in flight never ends.
        """
        if not 0 <= keep <= len(self._unsynced):
            raise ValueError(f"{len(self._unsynced)} batches are unsynced, cannot keep {keep}")
        self._is_crashed = True
        self._make_durable(keep)
        return SimulatedStore(self._call_later, rows=self._durable, sync_s=self._sync_s, watch=watch)

    # How --------------------------------------------------------------------------------------------------

    def _sync_is_due(self) -> None:
        if self._is_crashed:
            return
        self._is_sync_due = self._is_stalled
        if self._is_stalled:
            return
        if self._next_failure is not None:
            self._failure, self._next_failure = self._next_failure, None
            self._resolve(self._failure)
            return
        self._make_durable(self._in_flight_batches)
        self._tell(Moment.SYNCED)
        if not self._is_crashed:
            self._resolve(None)

    def _make_durable(self, batches: int) -> None:
        for _ in range(batches):
            for key, value in self._unsynced.popleft().items():
                if value is None:
                    self._durable.pop(key, None)
                else:
                    self._durable[key] = value

    def _resolve(self, failure: StoreError | None) -> None:
        done, self._in_flight = self._in_flight, None
        if done is None or done.done():
            return
        if failure is None:
            done.set_result(Commit.COMMITTED)
        else:
            done.set_exception(failure)

    def _tell(self, moment: Moment) -> None:
        if self._watch is not None:
            self._watch(moment)

    def _check_alive(self) -> None:
        if self._is_crashed:
            raise StoreError("the simulated store is closed or has crashed")
