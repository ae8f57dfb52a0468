"""The broker's data: who may open it, what damage does, what each durability keeps, and a disk that is full.

Whatever is wrong with the data, the broker says so and ends with exit code 3, and what was there is still there.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.acceptance import handlers
from tests.acceptance.disks import fill_up, small_disk
from tests.acceptance.fleet import Broker, Fleet, until
from tq import EnqueueRefused
from tq.core.errors import BrokerStoreFull
from tq.core.lifecycle import TaskState

CANNOT_OPEN = 3
MIB = 1 << 20
# What RocksDB writes each time it opens a database, whether or not it likes what it finds.
JOURNALS = ("LOCK", "LOG")


def fingerprint(data: Path) -> dict[str, str]:
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        # Who had it open last is not what it holds.
        if path.is_file() and not path.name.startswith(JOURNALS) and path.name != "owner"
    }


def refusal(broker: Broker) -> str:
    """Start *broker*, which cannot open its data, and return what it said."""
    before = len(broker.log)
    broker.launch()
    assert broker.wait() == CANNOT_OPEN, broker.log
    said = broker.log[before:]
    assert "Traceback" not in said
    assert "listening" not in said
    return said


def filled(fleet: Fleet, tasks: int = 500) -> Broker:
    """Return a broker that has been stopped, and whose tasks are in a table on disk."""
    broker = fleet.broker()
    fleet.bind(handlers.echo).enqueue_many([(f"e{number}-" + "x" * 500,) for number in range(tasks)])
    # What the log holds is written as a table by the next start.
    for _ in range(2):
        assert broker.terminate() == 0
        broker.start()
    assert broker.terminate() == 0
    assert list(fleet.data.rglob("*.sst"))
    return broker


def flip(path: Path, where: Callable[[int], range]) -> None:
    content = bytearray(path.read_bytes())
    for index in where(len(content)):
        content[index] ^= 0xFF
    path.write_bytes(content)


# ------------------------------------------------------------------------------------------- opening the data


def test_a_second_broker_on_the_same_data_is_turned_away_and_the_first_serves_on(fleet: Fleet) -> None:
    fleet.broker()
    fleet.worker()

    said = refusal(fleet.broker_program(listen="127.0.0.1:0"))

    assert "is open already" in said
    assert f"join it by tq://127.0.0.1:{fleet.port}" in said
    assert str(fleet.data) in said
    assert fleet.bind(handlers.echo).enqueue("on").result(timeout=10) == "on"


def test_data_of_a_later_version_is_refused_untouched(fleet: Fleet) -> None:
    broker = filled(fleet)
    (fleet.data / "format").write_text("tq data directory, format 99\n")
    before = fingerprint(fleet.data)

    said = refusal(broker)

    assert "has format 99, this version reads up to" in said
    assert fingerprint(fleet.data) == before


def test_a_directory_of_something_else_is_refused_untouched(fleet: Fleet) -> None:
    fleet.data.mkdir()
    (fleet.data / "thesis.tex").write_text("years of work")
    before = fingerprint(fleet.data)

    assert "is not empty and not ours: it holds thesis.tex" in refusal(fleet.broker_program())
    assert fingerprint(fleet.data) == before


@pytest.mark.parametrize(
    "where",
    [
        range,
        lambda size: range(size - 60, size),
        lambda size: range(0, size, 97),
    ],
    ids=["everything", "the end", "here and there"],
)
def test_a_damaged_table_is_refused_and_mends_when_it_is_restored(fleet: Fleet, where: Callable[[int], range]) -> None:
    broker = filled(fleet)
    tables = list(fleet.data.rglob("*.sst"))
    good = {table: table.read_bytes() for table in tables}
    for table in tables:
        flip(table, where)
    before = fingerprint(fleet.data)

    said = refusal(broker)

    assert "damaged" in said
    assert "restore a copy" in said
    after = fingerprint(fleet.data)
    assert {name: after.get(name) for name in before if name.endswith(".sst")} == {
        name: digest for name, digest in before.items() if name.endswith(".sst")
    }
    for table, content in good.items():
        table.write_bytes(content)
    broker.start()
    assert fleet.queue().ready == 500


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_missing_file_is_refused_and_mends_when_it_is_restored(fleet: Fleet, name: str) -> None:
    broker = filled(fleet)
    missing = next((fleet.data / "rocks").glob(name))
    content = missing.read_bytes()
    missing.unlink()

    said = refusal(broker)

    assert "damaged" in said
    missing.write_bytes(content)
    broker.start()
    assert fleet.queue().ready == 500


def test_a_log_damaged_where_it_was_acknowledged_is_refused(fleet: Fleet) -> None:
    broker = fleet.broker()
    for number in range(50):
        fleet.bind(handlers.echo).enqueue(f"e{number}" + "x" * 1_000)
    broker.kill()
    log = max((fleet.data / "rocks").glob("*.log"), key=lambda path: path.stat().st_size)
    good = log.read_bytes()
    flip(log, lambda size: range(size // 2, size // 2 + 20))
    before = fingerprint(fleet.data)

    said = refusal(broker)

    assert "acknowledged writes are lost" in said or "damaged" in said
    assert fingerprint(fleet.data) == before
    log.write_bytes(good)
    broker.start()
    assert fleet.queue().ready == 50


@pytest.mark.parametrize("durability", ["sync", "interval", "none"])
def test_what_was_acknowledged_survives_a_kill_whatever_the_durability(fleet: Fleet, durability: str) -> None:
    broker = fleet.broker(durability=durability)
    fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(3_000)])
    fleet.bind(handlers.echo).enqueue("the last one")

    broker.kill()
    broker.start()

    assert (fleet.queue().ready, fleet.app.client.stats().durability) == (3_001, durability)
    fleet.worker()
    until(fleet.is_drained)
    assert fleet.queue().completed_total == 3_001


# --------------------------------------------------------------------------------------------- a disk that is full


def test_below_its_reserve_a_broker_takes_nothing_new_and_lets_end_what_runs(fleet: Fleet) -> None:
    broker = fleet.broker()
    fleet.worker(name="w")
    running = fleet.bind(handlers.gated).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g"))
    broker.terminate()
    # More than the disk has: to the broker it is nearly full.
    short = fleet.broker(disk_reserve_bytes=1 << 40)

    with pytest.raises(BrokerStoreFull, match=r"below its reserve of \d+ it takes no new tasks"):
        fleet.bind(handlers.echo).enqueue("more")
    with pytest.raises(EnqueueRefused, match="store_full"):
        fleet.bind(handlers.echo).enqueue_many([("more",)])
    (fleet.directory / "w").touch()

    assert running.result(timeout=20) == "w"
    assert "disk.full" in short.log
    assert short.terminate() == 0
    broker.start()
    assert fleet.bind(handlers.echo).enqueue("again").result(timeout=20) == "again"


def test_a_small_disk_fills_up_to_the_reserve_and_drains_again(fleet: Fleet) -> None:
    with small_disk(fleet.directory / "disk", 64) as disk:
        reserve = 32 * MIB
        if disk is None:
            # The real disk has as much to spare before the reserve as the small one would have.
            reserve = shutil.disk_usage(fleet.directory).free - 32 * MIB
        broker = fleet.broker(data=(disk or fleet.directory) / "data", disk_reserve_bytes=reserve)
        accepted = enqueued_until_refused(fleet)
        assert 20 < accepted < 1_000

        broker.kill()
        broker.start()
        assert fleet.queue().ready == accepted
        fleet.worker()
        until(fleet.is_drained)

        assert fleet.queue().completed_total == accepted
        assert broker.terminate() == 0


@pytest.mark.parametrize("by", ["a full disk", "a file that may not grow"])
def test_a_broker_whose_writes_fail_stops_and_loses_nothing(fleet: Fleet, by: str) -> None:
    with small_disk(fleet.directory / "disk", 48) as disk:
        broker = fleet.broker(data=(disk or fleet.directory) / "data", disk_reserve_bytes=16 * MIB)
        handles = fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(500)])

        if by == "a full disk" and disk is not None:
            fill_up(disk / "fill")
        else:
            psutil.Process(broker.pid).rlimit(psutil.RLIMIT_FSIZE, (32 * 1024, 32 * 1024))
        fleet.worker_program().launch()
        assert broker.wait() == 1
        said = broker.log
        if disk is not None:
            (disk / "fill").unlink(missing_ok=True)
        broker.start()
        until(fleet.is_drained)

        assert "the disk is full" in said or "File too large" in said
        assert {handle.status().state for handle in handles} == {TaskState.COMPLETED}
        assert broker.terminate() == 0


def enqueued_until_refused(fleet: Fleet) -> int:
    for accepted in range(1_000):
        try:
            fleet.bind(handlers.echo).enqueue("x" * 200_000)
        except BrokerStoreFull:
            return accepted
    return 1_000
