"""A store on disk: RocksDB, and the only door to it.

The way of a commit: the batch is written to the log and to memory on the caller's
thread without fsync (`Rdict.write` holds the GIL, so fsync there would stop every
thread), then `flush_wal(True)`, which releases the GIL, waits for the disk in the one
thread of `tq.store.syncer`.

Invariants: no exception of RocksDB leaves this module; every one that means a lost or
an unreadable row is a `StoreCorrupt`. The log is never cut before what was acknowledged.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from itertools import islice
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from tq.core.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked
from tq.core.limits import SCAN_BYTES_MAX
from tq.core.times import DurationMs
from tq.store.base import DONE, OPEN_FILES_MAX, SYNC_INTERVAL_MS, Commit, Durability, Health
from tq.store.directory import DataDirectory, SyncedMark
from tq.store.ownership import Ownership
from tq.store.reclaimer import Reclaimer
from tq.store.syncer import DemandSyncer, IntervalSyncer

MIB = 1 << 20
CACHE_BYTES = 64 * MIB
_WRITE_BUFFER_BYTES = 64 * MIB
# A table that holds a run of this many deletions among this many rows is compacted at once. To walk over one
# costs 0.09 us, so that a scan meets at most some 0.2 ms of them in a table.
_DELETIONS_WINDOW = 4_096
_DELETIONS_IN_WINDOW = 2_048


class RocksStore:
    """RocksDB under the contract of `tq.store.base.Store`; one process at a time has a directory open.

    *holder* is told to whom finds the directory open: who has it and how to join, in half a sentence.

    It belongs to one thread. With `Durability.SYNC` a synced commit needs a running loop,
    on which its future ends; with the others a commit is complete when the call returns.

    Raises:
        StoreLocked: The directory is open already, here or in another process.
        StoreTooNew: A later version of the product wrote it.
        StoreCorrupt: It is damaged. Nothing was changed.
        StoreFull: The disk has no room to open it.
        StoreError: It is not ours, or the operating system refuses.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability = Durability.SYNC,
        sync_interval_ms: DurationMs = SYNC_INTERVAL_MS,
        cache_bytes: int = CACHE_BYTES,
        open_files_max: int = OPEN_FILES_MAX,
        holder: str = "a broker",
    ) -> None:
        self._directory = DataDirectory(directory)
        # A directory that is not ours is refused before a lock is made in it; whether a database is there is
        # looked at again under the lock, since another process may be making one.
        self._directory.prepare()
        self._ownership = Ownership(directory, holder)
        self._durability = durability
        self._failure: StoreError | None = None
        self._in_flight: asyncio.Future[Commit] | None = None
        self._is_closed = False
        # The log's position at the last fsync: written by the syncer's thread, by the owner's after it.
        self._sequence = 0
        try:
            self._db, self._mark = self._open(cache_bytes, open_files_max)
        except BaseException:
            self._ownership.release()
            raise
        # It lets go of the interpreter while it works.
        self._reclaimer = Reclaimer(self._db.compact_range)
        self._on_demand: DemandSyncer | None = None
        self._on_interval: IntervalSyncer | None = None
        if durability is Durability.SYNC:
            self._on_demand = DemandSyncer(self._sync, self._note_synced)
        elif durability is Durability.INTERVAL:
            self._on_interval = IntervalSyncer(self._sync, self._note_synced, sync_interval_ms)

    # ------------------------------------------------------------------------------------------------ reading

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None where there is no such row."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._translated(error, "cannot read a row") from error
        return value

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        """Return the rows of a range; see `tq.store.base.Store.scan`."""
        found: list[tuple[bytes, bytes]] = []
        if limit <= 0 or end <= start:
            return found
        try:
            # The bound also stops the walk over what was deleted beyond the range. An iterator reads it from
            # these options without keeping them alive: they must outlive it, or the bound is any bytes.
            within = ReadOptions()
            within.set_iterate_upper_bound(end)
            size = 0
            row: tuple[bytes, bytes]
            for row in islice(self._db.items(from_key=start, read_opt=within), limit):  # type: ignore[assignment]
                found.append(row)
                size += len(row[0]) + len(row[1])
                if size >= bytes_max:
                    break
            else:
                if len(found) < limit:
                    self._check_exhausted(found[-1][0] + b"\0" if found else start, within)
        except StoreError:
            raise
        except Exception as error:
            raise self._translated(error, "cannot read rows") from error
        return found

    def _check_exhausted(self, after: bytes, within: ReadOptions) -> None:
        """Raise unless the range is empty from *after* on.

        `Rdict.items` ends in the same way at the end of the range and at a block that
        cannot be read; only the slower iterator has a status. It costs 2 us.
        """
        rest = self._db.iter(within)
        rest.seek(after)
        rest.status()
        if rest.valid():
            raise StoreError(f"{self._where()}: a scan stopped before its end; the disk failed for a moment")

    # ------------------------------------------------------------------------------------------------ writing

    def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        """Write *writes* as one batch; see `tq.store.base.Store.commit`."""
        self._check_takes_commits()
        try:
            batch = WriteBatch(raw_mode=True)
            for key, value in writes.items():
                if value is None:
                    del batch[key]
                else:
                    batch[key] = value
            self._db.write(batch)
        except Exception as error:
            self._failure = self._translated(error, "cannot commit")
            raise self._failure from error
        if self._on_interval is not None:
            self._on_interval.note()
        if self._on_demand is None or not sync:
            return DONE
        self._in_flight = self._on_demand.request()
        return self._in_flight

    def _check_takes_commits(self) -> None:
        if self._is_closed:
            raise StoreError(f"{self._where()}: the store is closed")
        if self._failure is not None:
            # The same kind of error as the first: a full disk stays recognisable.
            raise type(self._failure)(f"no more commits since one failed: {self._failure}")
        assert self._in_flight is None or self._in_flight.done(), "a commit while one is in flight"

    def _sync(self) -> None:
        """Make durable what was written so far: in the syncer's thread, at the end in the owner's."""
        try:
            self._sequence = self._db.latest_sequence_number()
            self._db.flush_wal(True)
        except Exception as error:
            self._failure = self._translated(error, "cannot make a commit durable")
            raise self._failure from error

    def _note_synced(self) -> None:
        self._mark.advance(self._sequence)

    # ----------------------------------------------------------------------------------------------- the rest

    def snapshot(self, directory: Path) -> None:
        """Write a data directory of all rows as of now: hard links where it is on the same file system."""
        target = DataDirectory(directory)
        if target.prepare() or target.rocks.exists():
            raise StoreError(f"snapshot directory {directory} holds a database already; name a new one")
        try:
            Checkpoint(self._db).create_checkpoint(str(target.rocks))
            target.claim()
        except Exception as error:
            raise self._translated(error, f"cannot write a snapshot to {directory}") from error

    def reclaim(self, start: bytes, end: bytes) -> None:
        """Compact a range in a thread; see `tq.store.base.Store.reclaim`.

        RocksDB frees what was deleted once the deletions have left memory. Those of some 400,000
        tasks fit there, and without further writes they stay: on a full disk, for ever.
        """
        if not self._is_closed and self._failure is None:
            self._reclaimer.request(start, end)

    def health(self) -> Health:
        """Return the room on the disk and whether compaction keeps up."""
        stopped = delayed = 0
        failure = self._failure
        if not self._is_closed:
            try:
                stopped = self._db.property_int_value("rocksdb.is-write-stopped") or 0
                delayed = self._db.property_int_value("rocksdb.actual-delayed-write-rate") or 0
            except Exception as error:  # noqa: BLE001 - told, not raised: the next commit fails of it, if it lasts
                failure = failure or self._translated(error, "cannot be asked for its state")
        try:
            free = self._directory.free_bytes()
        except OSError:
            # The directory was taken away. The next commit says so better than a number could.
            free = 0
        return Health(
            kind="rocksdb",
            durability=self._durability,
            disk_free_bytes=free,
            is_write_stopped=stopped > 0,
            is_write_delayed=delayed > 0,
            failure=None if failure is None else str(failure),
        )

    def close(self) -> None:
        """Sync what was written, end the thread and unlock the directory.

        Raises:
            StoreError: The last writes could not be synced. The directory is unlocked all the same.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._reclaimer.close()
        for syncer in (self._on_demand, self._on_interval):
            if syncer is not None:
                syncer.close()
        try:
            if self._failure is None:
                self._sync()
                self._note_synced()
        finally:
            self._mark.close()
            try:
                self._db.close()
            except Exception as error:
                # A broken store has said so before; RocksDB says it again, after it has let go of its files.
                if self._failure is None:
                    raise self._translated(error, "cannot close") from error
            finally:
                self._ownership.release()

    def _open(self, cache_bytes: int, open_files_max: int) -> tuple[Rdict, SyncedMark]:
        exists = self._directory.prepare()
        try:
            mark = SyncedMark(self._directory.path)
        except OSError as error:
            raise self._translated(error, "cannot be used") from error
        try:
            db = _open_database(self._directory, _options(cache_bytes, open_files_max, create=not exists), mark)
        except BaseException:
            mark.close()
            raise
        try:
            if not exists:
                self._directory.claim()
        except OSError as error:
            mark.close()
            db.close()
            raise self._translated(error, "cannot be marked as ours") from error
        # What opening has recovered from the log it has also written to tables, and synced.
        mark.advance(db.latest_sequence_number())
        return db, mark

    def _where(self) -> str:
        return f"data directory {self._directory.path}"

    def _translated(self, error: Exception, what: str) -> StoreError:
        if isinstance(error, DbClosedError):
            return StoreError(f"{self._where()}: the store is closed")
        return _translated(error, self._directory, what)


# ------------------------------------------------------------------------------------------------- opening


def _open_database(directory: DataDirectory, options: Options, mark: SyncedMark) -> Rdict:
    """Open the database, or refuse before anything in it is changed.

    After a power failure the log's tail may be cut anywhere, which every recovery mode but
    the absolute one takes. It may also end in zeros or have a hole: where the file was
    allocated ahead, its length can reach the disk before its bytes do. To RocksDB that
    looks like a log damaged in the middle: `tolerate_corrupted_tail_records` refuses it,
    though nothing acknowledged is missing, and `point_in_time` drops what follows without
    a word, though it may have been acknowledged. So open in the strict mode, and where
    that refuses, let *mark* decide: look in read-only mode, which changes nothing, how far
    the log is whole, and go on if that is as far as it was synced.
    """
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    path = str(directory.rocks)
    try:
        db = Rdict(path, options)
    except Exception as error:
        refusal = _translated(error, directory, "cannot be opened")
        if not isinstance(refusal, StoreCorrupt):
            raise refusal from error
        options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
        try:
            whole = Rdict(path, options, access_type=AccessType.read_only(False))
        except Exception:  # noqa: BLE001 - it is damaged elsewhere than in the log: the first refusal says where
            raise refusal from error
        _check_complete(whole, directory, mark)
        whole.close()
        try:
            db = Rdict(path, options)
        except Exception as late:
            raise _translated(late, directory, "cannot be opened") from late
    _check_complete(db, directory, mark)
    return db


def _check_complete(db: Rdict, directory: DataDirectory, mark: SyncedMark) -> None:
    """Close *db* and raise where the log ends before *mark*."""
    reached, synced = db.latest_sequence_number(), mark.read()
    if reached < synced:
        db.close()
        raise StoreCorrupt(
            f"data directory {directory.path}: the log can be read up to write {reached}, but was synced "
            f"up to {synced}: {synced - reached} acknowledged writes are lost. Restore a copy; to go on "
            f"without them, delete the file {mark.path}"
        )


def _translated(error: Exception, directory: DataDirectory, what: str) -> StoreError:
    """Return our error for one of RocksDB's, which are plain exceptions known by their text alone."""
    text = str(error)
    where = f"data directory {directory.path}"
    if "lock hold by current process" in text or "While lock file" in text:
        return StoreLocked(
            f"{where} is open already, in this process or another: stop that broker, or use another directory ({text})"
        )
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return StoreFull(f"{where}: {what}, the disk is full: free some space and restart ({text})")
    # A database without its first file is offered as one to create, without another one as a file not found.
    if any(sign in text for sign in ("Corruption", "create_if_missing is false", "IO error: No such file")):
        return StoreCorrupt(
            f"{where}: {what}, it is damaged: restore a copy, or have RocksDB's `ldb repair` save what it "
            f"can of {directory.rocks} ({text})"
        )
    return StoreError(f"{where}: {what} ({text})")


def _options(cache_bytes: int, open_files_max: int, *, create: bool) -> Options:
    """RocksDB for a queue: rows are written once, read once or twice soon after, and deleted."""
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_block_based_table_factory(_table(cache_bytes))
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # Three may wait for the disk before a commit has to.
    options.set_max_write_buffer_number(4)
    # A get that misses, which every enqueue does for each new id, costs 0.3 us with these two and 0.5 to 1.0
    # without. At a fiftieth of the buffer the filter has 26 bits for each row of 160 bytes; a tenth costs
    # each write another 0.1 us, since the filter then fits no cache of the processor.
    options.set_memtable_prefix_bloom_ratio(0.02)
    options.set_memtable_whole_key_filtering(True)
    options.add_compact_on_deletion_collector_factory(_DELETIONS_WINDOW, _DELETIONS_IN_WINDOW, 0.0)
    options.set_max_background_jobs(2)
    options.set_max_open_files(open_files_max)
    # Spread the writing of tables, or one big fsync of theirs stands before the log's small ones.
    options.set_bytes_per_sync(MIB)
    options.set_max_manifest_file_size(64 * MIB)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * MIB)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options


def _table(cache_bytes: int) -> BlockBasedOptions:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    # Filters and indexes count against the cache, so that memory does not grow with the backlog.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    # In parts of 4 KB: the filter of a whole table, millions of rows that compress well, is larger than the share of
    # the cache that one block may have. It was read again for each get then, and enqueues fell to a tenth.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    # Four times the default: a quarter of the index, and rows are mostly read in order.
    table.set_block_size(16 * 1_024)
    return table
