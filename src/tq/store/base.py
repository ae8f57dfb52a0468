"""What a store is: one ordered keyspace of bytes, and the contract of a commit.

The contract, which every store keeps and `tq.testing.store_suite` checks:

- `commit` is atomic: after a crash all writes of a batch are there or none, and the
  batches that are there are the first ones committed, in order, without a gap.
- Its writes are visible to `get` and `scan` as soon as `commit` returns; what it
  returns is awaitable and ends once they are durable.
- One batch is in flight at a time. To commit while the last commit is still awaited
  is a bug of the caller, whatever `sync` says; what arrives meanwhile is the next batch.
- A commit that fails is never undone. The store is then broken: it refuses every
  later commit, since what memory shows is ahead of what the disk holds.
- With ``sync=False`` the batch keeps its place in the order but is not waited for: it
  becomes durable with the next synced batch at the latest. It is for what may be
  lost, a delivery for one, and is complete when `commit` returns.
"""

from collections.abc import Awaitable, Generator, Mapping
from enum import Enum
from pathlib import Path
from typing import Protocol

import msgspec

from tq.core.limits import SCAN_BYTES_MAX
from tq.core.times import DurationMs

SYNC_INTERVAL_MS = DurationMs(50)

OPEN_FILES_MAX = 512
"""How many files a store on disk has open at a time, unless there are fewer descriptors."""


class Commit(Enum):
    """How a commit ended."""

    COMMITTED = "committed"
    """The batch is as durable as the store promises."""
    DEPOSED = "deposed"
    """Another broker leads the cluster now: the batch was not taken, and none of ours will be."""


class Durability(Enum):
    """When a store on disk calls fsync; `risk` says what each choice can lose."""

    SYNC = "sync"
    INTERVAL = "interval"
    NONE = "none"

    @property
    def risk(self) -> str:
        """What may be lost, in a sentence for the reader of ``--help``."""
        return _RISKS[self]


_RISKS = {
    Durability.SYNC: ("fsync before anything is acknowledged: nothing acknowledged is lost, whatever crashes."),
    Durability.INTERVAL: (
        f"fsync every interval ({SYNC_INTERVAL_MS} ms unless set): a power failure or a crash of the system "
        "may lose what was acknowledged within it; a crash or kill of the broker alone loses nothing."
    ),
    Durability.NONE: (
        "no fsync, the system writes when it likes: a power failure or a crash of the system may lose what "
        "was acknowledged in the last minute; a crash or kill of the broker alone loses nothing."
    ),
}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is doing, for the broker to push back before it must stop."""

    kind: str
    """`rocksdb`, `memory`."""
    durability: Durability | None
    """None where nothing outlives the process."""
    disk_free_bytes: int | None
    """What this process may still write to the store's file system; None without a disk."""
    is_write_stopped: bool
    """The next commit would block until compaction has caught up."""
    is_write_delayed: bool
    """Commits are being slowed down so that compaction can catch up."""
    failure: str | None
    """Why the store is broken and takes no more commits; None while it works."""


class Store(Protocol):
    """One ordered keyspace of bytes. It belongs to one thread, and in a running loop where it needs one."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None where there is no such row."""

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return the rows from *start*, inclusive, to *end*, exclusive, in ascending order of their keys.

        At most *limit* of them, and none after the one whose key and value bring the sum
        to *bytes_max*: a range with rows yields one at least. *end* at or before *start*
        is an empty range.
        """

    def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        """Write *writes* as one batch, where None deletes a row; see the contract above.

        The call itself raises where the batch could not even be written, the awaitable
        where it could not be made durable. An empty batch is a barrier: its end says that
        all before it is durable.

        Raises:
            StoreFull: The disk has no room. The store is broken from now on, as after any of these.
            StoreError: The disk failed, or the store is closed or broken.
        """

    def snapshot(self, directory: Path) -> None:
        """Write all rows as of now to *directory*, new or empty, from where a store can be opened.

        It may take as long as a flush of memory to disk; the caller's thread waits.

        Raises:
            StoreError: The directory is not empty, the disk failed, or this store keeps nothing on disk.
        """

    def reclaim(self, start: bytes, end: bytes) -> None:
        """Begin to give the disk back what the deleted rows of a range take, from *start* to *end*, exclusive.

        It returns at once and never raises; it changes no row, and does nothing where rows
        leave no trace. Call it where most rows of a large range were deleted: a store may
        keep them until others are written, which may be never.
        """

    def health(self) -> Health:
        """Return the store's state; it costs microseconds and never raises."""

    def close(self) -> None:
        """Make all that was committed durable and let go of the files. A second call does nothing."""


class _Done:
    """An awaitable that has ended: it costs no turn of the loop, and may be awaited often or never."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, Commit]:
        return Commit.COMMITTED
        yield  # An unreached yield makes this a generator, which is what `await` asks for.


DONE: Awaitable[Commit] = _Done()
"""What `commit` returns where there is nothing to wait for."""
