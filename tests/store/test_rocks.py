"""The store on disk passes the suite, and refuses what it must: locks, strangers, damage, full disks."""

import asyncio
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tq.core.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreTooNew
from tq.core.times import DurationMs
from tq.store.base import Durability
from tq.store.directory import DataDirectory
from tq.store.rocks import RocksStore, _translated
from tq.testing.store_suite import StoreSuite, commit_all

EVERYTHING = (b"", b"\xff", 1_000_000, 1 << 40)


class TestRocksStore(StoreSuite):
    def open_store(self, directory: Path) -> RocksStore:
        return RocksStore(directory / "data")


class TestRocksStoreOnAnInterval(StoreSuite):
    def open_store(self, directory: Path) -> RocksStore:
        return RocksStore(directory / "data", durability=Durability.INTERVAL, sync_interval_ms=DurationMs(1))


class TestRocksStoreWithoutSync(StoreSuite):
    def open_store(self, directory: Path) -> RocksStore:
        return RocksStore(directory / "data", durability=Durability.NONE)


def filled(directory: Path, rows: int = 100) -> dict[bytes, bytes]:
    """Make a data directory with *rows* rows, one batch each, and close it."""
    store = RocksStore(directory)
    batches = [{b"k%04d" % number: os.urandom(500)} for number in range(rows)]
    commit_all(store, *batches)
    store.close()
    return {key: value for batch in batches for key, value in batch.items()}


def killed(directory: Path, program: str) -> None:
    """Run *program* in a process that has `store` open and ends without closing it."""
    script = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from tq.store.base import Durability\nfrom tq.store.rocks import RocksStore\n"
        "async def main():\n"
        f"    store = RocksStore(Path({str(directory)!r}))\n"
        + "".join(f"    {line}\n" for line in program.splitlines())
        + "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)
    assert ended.returncode == 9


FILL_AND_DIE = """\
for number in range(100):
    await store.commit({b"k%04d" % number: os.urandom(500)})
await store.commit({b"last": b"synced"})
store._on_demand.close()
os._exit(9)"""

FILL_UNSYNCED_AND_DIE = """\
await store.commit({b"first": b"synced"})
store._on_demand.close()
for number in range(100):
    store.commit({b"k%04d" % number: os.urandom(500)}, sync=False)
os._exit(9)"""


def newest_log(directory: Path) -> Path:
    return max(directory.glob("rocks/*.log"))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file but RocksDB's diary, and who had the directory open last."""
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("LOG") and path.name != "owner"
    }


def test_rows_are_there_after_closing_and_opening(tmp_path: Path) -> None:
    rows = filled(tmp_path / "data")

    store = RocksStore(tmp_path / "data")

    assert dict(store.scan(*EVERYTHING)) == rows
    store.close()


def test_a_commit_while_one_is_in_flight_is_a_bug(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")

    async def main() -> None:
        pending = store.commit({b"a": b"1"})
        for sync in (True, False):
            with pytest.raises(AssertionError, match="in flight"):
                store.commit({b"a": b"2"}, sync=sync)
        await pending

    asyncio.run(main())

    assert store.get(b"a") == b"1"
    store.close()


@pytest.mark.parametrize("durability", [Durability.INTERVAL, Durability.NONE])
def test_without_a_sync_to_wait_for_a_commit_needs_no_loop(tmp_path: Path, durability: Durability) -> None:
    store = RocksStore(tmp_path / "data", durability=durability)

    store.commit({b"a": b"1"})
    store.commit({b"a": b"2"})
    store.close()

    again = RocksStore(tmp_path / "data")
    assert again.get(b"a") == b"2"
    again.close()


def test_health_names_the_store_and_its_durability(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data", durability=Durability.INTERVAL)

    health = store.health()

    assert (health.kind, health.durability) == ("rocksdb", Durability.INTERVAL)
    store.close()
    assert store.health().kind == "rocksdb"


def test_health_tells_what_rocksdb_raises(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    store._db.close()

    health = store.health()

    assert "the store is closed" in (health.failure or "")
    with pytest.raises(StoreError, match="the store is closed"):
        store.close()


def test_health_survives_the_loss_of_the_directory(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "elsewhere")

    assert store.health().disk_free_bytes == 0

    (tmp_path / "elsewhere").rename(tmp_path / "data")
    store.close()


def test_a_second_store_on_the_directory_is_refused_here(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    commit_all(store, {b"a": b"1"})

    with pytest.raises(StoreLocked, match=str(tmp_path / "data")):
        RocksStore(tmp_path / "data")

    commit_all(store, {b"b": b"2"})
    store.close()
    RocksStore(tmp_path / "data").close()


def test_a_second_store_on_the_directory_is_refused_in_another_process(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = (
        "import sys\nfrom pathlib import Path\nfrom tq.core.errors import StoreLocked\n"
        "from tq.store.rocks import RocksStore\n"
        f"try:\n    RocksStore(Path({str(tmp_path / 'data')!r}))\n"
        "except StoreLocked:\n    sys.exit(7)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False)

    assert ended.returncode == 7
    store.close()


def test_a_directory_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter one")

    with pytest.raises(StoreError, match="not ours"):
        RocksStore(tmp_path)

    assert contents(tmp_path) == {"thesis.tex": b"chapter one"}


def test_a_later_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    (tmp_path / "data" / "format").write_text("tq data directory, format 2\n")
    before = contents(tmp_path)

    with pytest.raises(StoreTooNew, match="format 2"):
        RocksStore(tmp_path / "data")

    assert contents(tmp_path) == before


def test_a_creation_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    (tmp_path / "data" / "format").unlink()

    store = RocksStore(tmp_path / "data")

    assert len(store.scan(*EVERYTHING)) == 100
    store.close()
    assert (tmp_path / "data" / "format").exists()


def test_a_database_that_is_gone_is_damage_and_not_a_new_one(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "rocks")

    with pytest.raises(StoreCorrupt):
        RocksStore(tmp_path / "data")


def lose(path: Path) -> None:
    path.unlink()


def flip_the_middle(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [lose, flip_the_middle])
@pytest.mark.parametrize("pattern", ["MANIFEST-*", "CURRENT"])
def test_damage_that_keeps_it_from_opening_is_named(
    tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    filled(tmp_path / "data")
    (path,) = tmp_path.glob(f"data/rocks/{pattern}")
    damage(path)

    with pytest.raises(StoreError, match="cannot be opened") as refused:
        RocksStore(tmp_path / "data")

    assert isinstance(refused.value, StoreCorrupt)
    assert str(tmp_path / "data") in str(refused.value)


def test_a_table_that_is_gone_keeps_it_from_opening(tmp_path: Path) -> None:
    filled(tmp_path / "data")
    for table in tmp_path.glob("data/rocks/*.sst"):
        table.unlink()

    with pytest.raises(StoreCorrupt):
        RocksStore(tmp_path / "data")


def test_a_row_in_a_damaged_table_is_an_error_and_never_a_missing_row(tmp_path: Path) -> None:
    rows = filled(tmp_path / "data")
    (table,) = tmp_path.glob("data/rocks/*.sst")
    flip(table, 30_000)
    store = RocksStore(tmp_path / "data")

    with pytest.raises(StoreCorrupt, match="damaged"):
        store.scan(*EVERYTHING)

    found: list[bytes | None] = []
    with pytest.raises(StoreCorrupt, match="damaged"):
        found.extend(store.get(key) for key in rows)
    assert None not in found
    store.close()


def test_what_was_synced_is_there_after_a_kill(tmp_path: Path) -> None:
    killed(tmp_path / "data", FILL_AND_DIE)

    store = RocksStore(tmp_path / "data")

    assert len(store.scan(*EVERYTHING)) == 101
    store.close()


def test_a_log_damaged_where_it_was_synced_is_refused_and_left_alone(tmp_path: Path) -> None:
    killed(tmp_path / "data", FILL_AND_DIE)
    log = newest_log(tmp_path / "data")
    whole = log.read_bytes()
    flip(log, len(whole) // 2)
    before = contents(tmp_path)

    with pytest.raises(StoreCorrupt, match="acknowledged writes are lost"):
        RocksStore(tmp_path / "data")

    assert contents(tmp_path) == before
    log.write_bytes(whole)
    store = RocksStore(tmp_path / "data")
    assert len(store.scan(*EVERYTHING)) == 101
    store.close()


def test_a_log_cut_before_what_was_synced_is_refused(tmp_path: Path) -> None:
    killed(tmp_path / "data", FILL_AND_DIE)
    log = newest_log(tmp_path / "data")
    log.write_bytes(log.read_bytes()[:20_000])

    with pytest.raises(StoreCorrupt, match="acknowledged writes are lost"):
        RocksStore(tmp_path / "data")


def test_whoever_accepts_the_loss_deletes_the_mark_and_goes_on(tmp_path: Path) -> None:
    killed(tmp_path / "data", FILL_AND_DIE)
    flip(newest_log(tmp_path / "data"), 20_000)
    (tmp_path / "data" / "synced").unlink()

    store = RocksStore(tmp_path / "data")

    kept = [key for key, _ in store.scan(*EVERYTHING)]
    assert 0 < len(kept) < 100
    assert kept == [b"k%04d" % number for number in range(len(kept))]
    store.close()


def cut(content: bytes) -> bytes:
    return content[: 2 * len(content) // 3]


def end_in_zeros(content: bytes) -> bytes:
    return cut(content) + bytes(len(content) - len(cut(content)))


def have_a_hole(content: bytes) -> bytes:
    start = 2 * len(content) // 3
    return content[:start] + bytes(4_096) + content[start + 4_096 :]


def go_on_after_the_end(content: bytes) -> bytes:
    return content + b"\x5a" * 5_000


@pytest.mark.parametrize("power_failure", [cut, end_in_zeros, have_a_hole, go_on_after_the_end])
def test_a_torn_tail_that_was_not_synced_opens_and_keeps_what_is_before_it(
    tmp_path: Path, power_failure: Callable[[bytes], bytes]
) -> None:
    killed(tmp_path / "data", FILL_UNSYNCED_AND_DIE)
    log = newest_log(tmp_path / "data")
    log.write_bytes(power_failure(log.read_bytes()))

    store = RocksStore(tmp_path / "data")

    kept = [key for key, _ in store.scan(b"k", b"l", 1_000)]
    assert store.get(b"first") == b"synced"
    assert len(kept) >= 60
    assert kept == [b"k%04d" % number for number in range(len(kept))]
    commit_all(store, {b"more": b"1"})
    store.close()
    RocksStore(tmp_path / "data").close()


def test_a_snapshot_opens_as_a_directory_of_its_own(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    commit_all(store, {b"a": b"1"})
    store.commit({b"b": b"2"}, sync=False)

    store.snapshot(tmp_path / "copy")
    commit_all(store, {b"a": b"changed"})

    copy = RocksStore(tmp_path / "copy")
    assert copy.scan(*EVERYTHING) == [(b"a", b"1"), (b"b", b"2")]
    copy.close()
    store.close()


def test_a_snapshot_never_replaces_one(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    store.snapshot(tmp_path / "copy")

    for taken in (tmp_path / "copy", tmp_path / "data"):
        with pytest.raises(StoreError, match="holds a database"):
            store.snapshot(taken)
    store.close()


def put_in_place_of_the_log(store: RocksStore, other: int) -> None:
    """Let what the store writes to its log go to the file descriptor *other* instead."""
    opened = {entry.name: str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}
    logs = [
        int(number)
        for number, path in opened.items()
        if path.startswith(str(store._directory.rocks)) and path.endswith(".log")
    ]
    os.dup2(other, max(logs))


def test_a_failed_sync_is_raised_once_and_breaks_the_store(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    commit_all(store, {b"a": b"1"})
    # A pipe can be written to and cannot be synced.
    reading, writing = os.pipe()
    put_in_place_of_the_log(store, writing)

    async def main() -> None:
        pending = store.commit({b"b": b"2"})
        with pytest.raises(StoreError, match="cannot make a commit durable"):
            await pending
        with pytest.raises(StoreError, match="no more commits"):
            store.commit({b"c": b"3"})

    asyncio.run(main())

    assert "cannot make a commit durable" in (store.health().failure or "")
    assert store.get(b"b") == b"2"
    store.close()
    os.close(reading)
    os.close(writing)


def test_a_failed_sync_on_an_interval_shows_in_health_and_refuses_what_follows(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data", durability=Durability.INTERVAL, sync_interval_ms=DurationMs(0))
    reading, writing = os.pipe()
    put_in_place_of_the_log(store, writing)

    store.commit({b"a": b"1"})
    assert store._on_interval is not None
    store._on_interval._thread.join(60)

    assert "cannot make a commit durable" in (store.health().failure or "")
    with pytest.raises(StoreError, match="no more commits"):
        store.commit({b"b": b"2"})
    store.close()
    os.close(reading)
    os.close(writing)


def test_what_cannot_be_synced_at_the_end_is_said_and_the_directory_let_go(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data", durability=Durability.NONE)
    reading, writing = os.pipe()
    put_in_place_of_the_log(store, writing)
    store.commit({b"a": b"1"})

    with pytest.raises(StoreError, match="cannot make a commit durable"):
        store.close()

    RocksStore(tmp_path / "data").close()
    os.close(reading)
    os.close(writing)


def test_a_commit_that_cannot_be_written_breaks_the_store(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data")
    commit_all(store, {b"a": b"1"})
    full = os.open("/dev/full", os.O_WRONLY)
    put_in_place_of_the_log(store, full)

    with pytest.raises(StoreFull, match="cannot commit"):
        store.commit({b"b": b"2"}, sync=False)
    with pytest.raises(StoreFull, match="no more commits"):
        store.commit({b"c": b"3"}, sync=False)

    store.close()
    os.close(full)
    again = RocksStore(tmp_path / "data")
    assert [key for key, _ in again.scan(*EVERYTHING)] == [b"a"]
    again.close()


@contextmanager
def files_limited(bytes_max: int) -> Iterator[None]:
    """Let no file of this process grow beyond *bytes_max*: what is written at the limit is written in part."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def log_on_a_full_device(store: RocksStore) -> Iterator[None]:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        put_in_place_of_the_log(store, full)
        yield
    finally:
        os.close(full)


@pytest.mark.parametrize("by", ["a full disk", "a file that may not grow"])
def test_a_disk_that_takes_no_more_breaks_the_store_and_loses_nothing(tmp_path: Path, by: str) -> None:
    store = RocksStore(tmp_path / "data")
    acknowledged: list[bytes] = []

    async def fill(rows: int) -> None:
        for _ in range(rows):
            key = b"k%04d" % len(acknowledged)
            await store.commit({key: os.urandom(100_000)})
            acknowledged.append(key)

    asyncio.run(fill(30))
    kind, text = (StoreFull, "full") if by == "a full disk" else (StoreError, "File too large")
    # In the middle of a record: half of it is written.
    with log_on_a_full_device(store) if by == "a full disk" else files_limited(5_050_000):
        with pytest.raises(kind, match=text):
            asyncio.run(fill(1_000))
        with pytest.raises(kind, match="no more commits"):
            store.commit({b"z": b"1"}, sync=False)
        store.close()
    again = RocksStore(tmp_path / "data")

    assert len(acknowledged) == (30 if by == "a full disk" else 50)
    assert [key for key in acknowledged if again.get(key) is None] == []
    assert again.get(b"z") is None
    again.close()


@pytest.mark.parametrize(
    "text, kind",
    [
        ("IO error: No space left on device: While appending to file: 7.log", StoreFull),
        ("IO error: Disk quota exceeded: While appending to file: 7.log", StoreFull),
        ("IO error: While lock file: LOCK: Resource temporarily unavailable", StoreLocked),
        ("Corruption: block checksum mismatch", StoreCorrupt),
        ("IO error: Input/output error", StoreError),
    ],
)
def test_what_rocksdb_says_becomes_our_error_with_its_text(text: str, kind: type[StoreError]) -> None:
    error = _translated(Exception(text), DataDirectory(Path("data")), "cannot commit")

    assert type(error) is kind
    assert text in str(error)


def test_reclaiming_gives_the_room_of_deleted_rows_back_though_nothing_more_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    filled(directory, 200)
    store = RocksStore(directory)
    commit_all(store, {b"k%04d" % number: None for number in range(200)})
    tables = DataDirectory(directory).rocks

    store.reclaim(b"k", b"l")
    # To close is to wait for the range under way.
    store.close()

    assert sum(path.stat().st_size for path in tables.glob("*.sst")) == 0


def test_a_row_that_is_not_there_is_looked_for_without_reading_the_filter_of_a_whole_table(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "data", durability=Durability.NONE)
    # Two halves, each between the rows of the other, become one table. Its filter of 10 bits a row, 2.6 MB, is more
    # than a block may take of the cache.
    pairs, step = 1 << 20, 1 << 14
    for half in (0, 1):
        for first in range(0, pairs, step):
            commit_all(store, {b"T%08d" % (3 * number + half): b"" for number in range(first, first + step)})
        store._db.compact_range(None, None)
    assert len(store._db.live_files()) == 1
    missing = [b"T%08d" % (3 * number + 2) for number in range(pairs // 2, pairs // 2 + 1_001)]
    assert store.get(missing.pop()) is None

    before = bytes_read()
    # As new ids do, all lie close to each other.
    assert [store.get(key) for key in missing] == [None] * 1_000

    assert bytes_read() - before < 1 << 20
    store.close()


def bytes_read() -> int:
    """Return how many bytes this process has asked the system for, from its cache or the disk."""
    return int(Path("/proc/self/io").read_text().split()[1])
