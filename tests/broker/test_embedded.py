"""The embedded broker, over its real socket pairs."""

import asyncio
import gc
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tq.broker.config import BrokerSettings
from tq.broker.embedded import SETTINGS, EmbeddedBroker, open_directory, open_memory, settings_for
from tq.client import SyncClient
from tq.client.local import connect_local
from tq.core.errors import ConfigError, StoreError, StoreLocked
from tq.core.task import Task
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MAGIC, VERSIONS, GetStats, Hello, Ping, Pong, Role, Stats, Welcome
from tq.store.base import Commit
from tq.store.memory import MemoryStore
from tq.worker.config import WorkerSettings


def ask(sock: socket.socket, *messages: object) -> list[object]:
    """Send requests, return as many replies."""
    for correlation, message in enumerate(messages, 1):
        sock.sendall(encode_message(message, correlation))  # type: ignore[arg-type]
    reader, replies = FrameReader(), list[object]()
    sock.settimeout(10)
    while len(replies) < len(messages):
        data = sock.recv(65_536)
        assert data, "the broker closed the connection"
        replies += [decode_message(frame.kind, frame.body) for frame in reader.feed(data)]
    return replies


def test_it_speaks_the_protocol_on_every_connection_it_gives() -> None:
    broker = open_memory()
    try:
        with broker.connect() as first, broker.connect() as second:
            replies = [ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT), Ping()) for sock in (first, second)]
    finally:
        broker.close()

    assert [[type(reply) for reply in each] for each in replies] == [[Welcome, Pong]] * 2


def test_its_figures_tell_the_memory_of_the_process() -> None:
    broker = open_memory()
    try:
        with broker.connect() as sock:
            _, stats = ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT), GetStats())
    finally:
        broker.close()

    assert isinstance(stats, Stats)
    assert stats.rss_bytes > 1_000_000


def test_close_ends_its_connections_and_may_be_repeated() -> None:
    broker = open_memory()
    sock = broker.connect()
    ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT))

    broker.close()
    broker.close()

    with sock:
        while sock.recv(65_536):
            pass  # the farewell, then the end
    with pytest.raises(StoreError, match="closed"):
        broker.connect()


def test_the_broker_of_a_directory_serves_its_process_and_others_until_it_is_closed(tmp_path: Path) -> None:
    broker = open_directory(tmp_path / "data", {})
    broker.started.result(20)
    joined = connect_local(tmp_path / "data")
    assert joined is not None

    with joined, broker.connect() as own:
        replies = [ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT), Ping()) for sock in (own, joined)]
        broker.close()

        while joined.recv(65_536):
            pass  # the farewell, then the end

    assert [[type(reply) for reply in each] for each in replies] == [[Welcome, Pong]] * 2
    assert connect_local(tmp_path / "data") is None
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir()) == ["format", "owner", "rocks", "synced"]


def test_a_second_broker_of_a_directory_says_who_has_it_and_harms_nothing(tmp_path: Path) -> None:
    first = open_directory(tmp_path, {})
    first.started.result(20)

    second = open_directory(tmp_path, {})

    with pytest.raises(StoreLocked, match=f"which embeds a broker: join it by file:{tmp_path}"):
        second.started.result(20)
    second.close()
    with first.connect() as sock:
        assert isinstance(ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT))[0], Welcome)
    first.close()


def test_a_close_while_the_directory_is_being_opened_ends_it_too(tmp_path: Path) -> None:
    broker = open_directory(tmp_path, {})

    broker.close()

    assert not broker.is_alive
    again = open_directory(tmp_path, {})
    again.started.result(20)
    again.close()


def test_a_socket_that_a_killed_owner_has_left_is_replaced(tmp_path: Path) -> None:
    for name in ("tq.sock", "tq.sock.new"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / name))

    broker = open_directory(tmp_path, {})
    broker.started.result(20)

    joined = connect_local(tmp_path)
    assert joined is not None
    joined.close()
    broker.close()


def test_what_cannot_be_a_socket_is_said(tmp_path: Path) -> None:
    (tmp_path / "tq.sock").mkdir()

    broker = open_directory(tmp_path, {})

    with pytest.raises(StoreError, match="no socket can be made there"):
        broker.started.result(20)
    broker.close()


class Disk(MemoryStore):
    """A store whose commits fail from a word on."""

    is_on_fire = False
    is_closed = False

    def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        if self.is_on_fire:
            raise StoreError("the disk is on fire")
        return super().commit(writes, sync=sync)

    def close(self) -> None:
        self.is_closed = True
        super().close()


class Way:
    """A dialer of one broker, for threads."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        return self._broker.connect()

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        raise AssertionError("no loop runs here")


def test_a_broker_that_failed_lets_go_of_its_store_so_that_another_can_start_from_it() -> None:
    disk = Disk()
    broker = EmbeddedBroker(open_its_store=lambda: disk)
    broker.started.result(10)

    client = SyncClient(Way(broker), request_timeout_s=10)
    client.enqueue(Task.build("durable").task())
    disk.is_on_fire = True
    with pytest.raises(StoreError, match="the embedded broker is closed"):
        client.enqueue(Task.build("never said to be").task())
    client.close()

    broker._thread.join(10)
    assert not broker.is_alive
    assert disk.is_closed
    broker.close()


class SlowToClose(MemoryStore):
    """A store whose end waits for a word."""

    def __init__(self) -> None:
        super().__init__()
        self.may_close = threading.Event()

    def close(self) -> None:
        self.may_close.wait(30)
        super().close()


def test_a_broker_that_takes_long_to_end_is_logged_and_takes_no_connection_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = SlowToClose()
    broker = EmbeddedBroker(open_its_store=lambda: store)
    broker.started.result(10)
    stopped = asyncio.run_coroutine_threadsafe(broker._stop.wait(), broker._loop)

    broker.close(0)
    stopped.result(10)

    assert [record.getMessage() for record in caplog.records] == ["embedded.close not_ended_after_s=0 directory=none"]
    assert broker._thread.is_alive()
    with pytest.raises(StoreError, match="closed"):
        broker.connect()
    store.may_close.set()
    broker.close()
    assert not broker._thread.is_alive()


def test_threads_that_connect_while_it_ends_are_refused_or_closed_and_harm_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            broker, given = open_memory(), list[socket.socket]()

            def connect(broker: EmbeddedBroker = broker, given: list[socket.socket] = given) -> None:
                with suppress(StoreError):
                    given.extend(broker.connect() for _ in range(100))

            threads = [threading.Thread(target=connect) for _ in range(3)]
            for thread in threads:
                thread.start()
            broker.close()
            for thread in threads:
                thread.join()

            assert not broker._thread.is_alive()
            for ours in given:
                with ours:
                    ours.settimeout(10)
                    assert ours.recv(1) == b""
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    assert caplog.messages == []


def test_closed_connections_are_forgotten_in_time() -> None:
    broker = open_memory()
    for _ in range(300):
        with broker.connect() as sock:
            ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT))

    assert len(broker._noted) < 150
    broker.close()


def test_settings_are_the_daemons_in_the_environment_as_people_write_them() -> None:
    environment = {"TQ_DURABILITY": "interval", "TQ_LEASE_MS": "20s", "TQ_BLOCK_CACHE_BYTES": "8MiB", "TQ_LISTEN": "x"}

    settings = settings_for(Path("/data"), environment)

    assert (settings.durability, settings.lease_ms, settings.block_cache_bytes) == ("interval", 20_000, 8 << 20)
    assert settings.data == Path("/data")
    assert settings_for(Path("/data"), {"TQ_LEASE_MS": ""}).durability == "sync"


@pytest.mark.parametrize(
    ("name", "meant"), [("TQ_LEASE", "TQ_LEASE_MS"), ("TQ_LEASES_MS", "TQ_LEASE_MS"), ("TQ_DURABILTY", "TQ_DURABILITY")]
)
def test_a_variable_that_is_meant_for_a_setting_is_an_error(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: .* did you mean {meant}"):
        settings_for(Path("/data"), {name: "1"})


def test_variables_of_the_other_programs_are_none_of_the_brokers() -> None:
    theirs = [f"TQ_{name.upper()}" for each in (BrokerSettings, WorkerSettings) for name in each.__struct_fields__]
    environment = dict.fromkeys([*theirs, "TQ_URL", "TQ_CONFIG", "TQ_SERVICE_HOST", "TQ_SHOP"], "x")

    settings = settings_for(Path("/data"), {name: "" if name[3:].lower() in SETTINGS else "x" for name in environment})

    assert settings.lease_ms == BrokerSettings().lease_ms


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_cannot_be_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name.upper() + "|" + name):
        settings_for(Path("/data"), {f"TQ_{name.upper()}": "7 leagues"})
