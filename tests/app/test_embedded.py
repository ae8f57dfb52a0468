"""The embedded broker: started when it is needed, gone when it is closed."""

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tq.app.app import App
from tq.app.embedded import FileDialer, MemoryDialer, _Here, _here
from tq.broker import embedded
from tq.client import AsyncClient, SyncClient
from tq.client.local import socket_path
from tq.core.errors import BrokerUnavailable, ConfigError, StoreError, UsageError


def broker_threads() -> int:
    return sum("broker" in thread.name for thread in threading.enumerate())


def test_the_broker_runs_from_the_first_connection_until_the_close() -> None:
    before = broker_threads()
    dialer = MemoryDialer()
    assert broker_threads() == before

    dialer.connect_blocking(1).close()
    dialer.connect_blocking(1).close()
    running = broker_threads()
    dialer.close()
    dialer.close()

    assert running == before + 1
    assert broker_threads() == before


def test_a_closed_broker_is_not_started_again_behind_ones_back() -> None:
    dialer = MemoryDialer()
    dialer.connect_blocking(1).close()
    dialer.close()

    with pytest.raises(UsageError, match="was closed, with all it held"):
        dialer.connect_blocking(1)


def test_two_apps_have_two_brokers() -> None:
    with App("memory:") as one, App("memory:") as other:

        @one.task(queue="only-here")
        def send() -> None: ...

        send.enqueue()

        assert [queue.name for queue in one.client.queues()] == ["only-here"]
        assert other.client.queues() == []


def test_dialers_of_a_directory_share_a_broker_until_the_last_is_closed(tmp_path: Path) -> None:
    one, other = FileDialer(tmp_path), FileDialer(tmp_path / "." / "x" / "..")
    before = broker_threads()
    assert not one.is_owner

    one.connect_blocking(20).close()
    other.connect_blocking(20).close()
    running = broker_threads()
    one.close()
    one.close()
    left = broker_threads()
    other.close()

    assert (running, left, broker_threads()) == (before + 1, before + 1, before)


def test_a_closed_dialer_of_a_directory_opens_it_anew(tmp_path: Path) -> None:
    dialer = FileDialer(tmp_path)
    dialer.connect_blocking(20).close()
    dialer.close()
    assert not dialer.is_owner

    dialer.connect_blocking(20).close()

    assert dialer.is_owner
    dialer.close()


async def _connect_async(dialer: MemoryDialer | FileDialer) -> None:
    transport = await dialer.connect(asyncio.Protocol)
    transport.abort()


def test_a_loop_connects_to_a_directory_and_hears_what_is_in_the_way(tmp_path: Path) -> None:
    dialer = FileDialer(tmp_path / "data")
    asyncio.run(_connect_async(dialer))
    dialer.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()

    with pytest.raises(BrokerUnavailable, match=r"not ours: it holds thesis\.tex"):
        asyncio.run(_connect_async(FileDialer(tmp_path / "other")))


def test_who_gives_up_on_a_loop_leaves_the_opening_to_go_on_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "thesis.tex").touch()
    good, bad = FileDialer(tmp_path / "data"), FileDialer(tmp_path)

    async def give_up() -> None:
        for dialer in (good, bad):
            connecting = asyncio.ensure_future(_connect_async(dialer))
            await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.wait([connecting])

    asyncio.run(give_up())
    good.connect_blocking(20).close()
    with pytest.raises(BrokerUnavailable):
        bad.connect_blocking(20)
    gc.collect()

    assert good.is_owner
    assert caplog.messages == []
    good.close()
    bad.close()


FORKER = """
import os, sys, threading
from pathlib import Path
import tq.broker.embedded as embedded
from tq.app.embedded import FileDialer
from tq.core.errors import BrokerUnavailable

directory = Path(sys.argv[1])
begins = threading.Event()
os.register_at_fork(before=begins.set)
opened = embedded.open_directory


def fork():
    child = os.fork()
    if child == 0:
        try:
            FileDialer(directory / "other").connect_blocking(10)
        except BrokerUnavailable as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)


def open_while_another_thread_forks(directory, environment):
    broker = opened(directory, environment)
    forking.start()
    begins.wait()
    forking.join(0.2)  # It is held up until the broker is noted.
    return broker


forking = threading.Thread(target=fork)
embedded.open_directory = open_while_another_thread_forks
dialer = FileDialer(directory / "data")
dialer.connect_blocking(20).close()
forking.join()
dialer.close()
"""


@pytest.mark.acceptance
def test_a_fork_while_a_thread_opens_a_directory_knows_that_it_cannot_own_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert "this one was forked from one that had a broker" in done.stdout, done
    assert (done.returncode, done.stderr) == (0, "")


class _EndsFirst:
    """A lock of *here* that another gets first: the end of the process."""

    def __init__(self, here: _Here) -> None:
        self._here, self._lock = here, here._lock

    def __enter__(self) -> None:
        self._here._lock = self._lock
        self._here.end()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_no_broker_is_opened_once_the_end_has_closed_those_that_there_were(tmp_path: Path) -> None:
    here = _Here()
    here._lock = _EndsFirst(here)  # type: ignore[assignment]

    with pytest.raises(BrokerUnavailable, match="this one is about to end"):
        here.claim(tmp_path, FileDialer(tmp_path))

    assert here.broker(tmp_path) is None


class _Slow:
    """A way to open a broker that waits for a word first, as on a slow disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.may_open = threading.Event()
        self._open = getattr(embedded, name)
        monkeypatch.setattr(embedded, name, self)

    def __call__(self, *arguments: object) -> embedded.EmbeddedBroker:
        assert self.may_open.wait(10)
        broker: embedded.EmbeddedBroker = self._open(*arguments)
        return broker


def slow_dialer(kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[MemoryDialer | FileDialer, _Slow]:
    if kind == "memory":
        return MemoryDialer(), _Slow(monkeypatch, "open_memory")
    return FileDialer(directory), _Slow(monkeypatch, "check_directory")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_loop_goes_on_while_a_broker_is_opened_for_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialer, slow = slow_dialer(kind, tmp_path, monkeypatch)

    async def connect() -> None:
        asyncio.get_running_loop().call_soon(slow.may_open.set)
        transport = await dialer.connect(asyncio.Protocol)
        transport.abort()

    asyncio.run(connect())
    dialer.close()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_thread_waits_no_longer_than_it_said_for_a_broker_to_be_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialer, slow = slow_dialer(kind, tmp_path, monkeypatch)

    with pytest.raises(BrokerUnavailable, match="is still being"):
        dialer.connect_blocking(0)

    slow.may_open.set()
    dialer.connect_blocking(20).close()
    dialer.close()


def test_a_directory_that_nobody_wants_any_more_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dialer, slow = slow_dialer("file", tmp_path / "data", monkeypatch)
    with pytest.raises(BrokerUnavailable):
        dialer.connect_blocking(0)
    opening = _here._openings[str(tmp_path / "data")]

    dialer.close()
    slow.may_open.set()
    opening.result(10)

    assert not (tmp_path / "data").exists()


def test_a_broker_on_memory_that_cannot_start_is_unavailable_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> embedded.EmbeddedBroker:
        raise StoreError("it did not start")

    dialer = MemoryDialer()
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "open_memory", fail)
        with pytest.raises(BrokerUnavailable, match="cannot start: it did not start"):
            dialer.connect_blocking(10)
        with pytest.raises(BrokerUnavailable, match="cannot start: it did not start"):
            asyncio.run(_connect_async(dialer))

    dialer.connect_blocking(10).close()
    dialer.close()


def test_a_wrong_variable_of_the_environment_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQ_LEASE_MS", "abc")

    with pytest.raises(ConfigError, match="TQ_LEASE_MS"):
        FileDialer(tmp_path).connect_blocking(20)
    with pytest.raises(ConfigError, match="TQ_LEASE_MS"):
        asyncio.run(_connect_async(FileDialer(tmp_path)))
    with App(f"file:{tmp_path}") as app, pytest.raises(ConfigError, match="TQ_LEASE_MS"):
        app.client.queues()


def test_a_path_that_is_a_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"cannot be used: .*; give another directory"):
            FileDialer(path).connect_blocking(20)
        with pytest.raises(ConfigError, match="cannot be used"):
            asyncio.run(_connect_async(FileDialer(path)))


def test_an_owner_that_does_not_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("in process 7, shop.py, which embeds a broker: join it by file:x\n")
    said = f"data directory {tmp_path} is open already, in process 7, shop.py, which embeds a broker, and does not"

    async def ask() -> None:
        async with AsyncClient(FileDialer(tmp_path), connect_timeout_s=0.2) as client:
            await client.queues()

    with socket.socket(socket.AF_UNIX) as suspended:
        with socket_path(tmp_path) as path:
            suspended.bind(path)
        suspended.listen()
        with (
            SyncClient(FileDialer(tmp_path), connect_timeout_s=0.2) as client,
            pytest.raises(BrokerUnavailable, match=said),
        ):
            client.queues()
        with pytest.raises(BrokerUnavailable, match=said):
            asyncio.run(ask())


def test_an_owner_that_has_left_no_word_is_not_named(tmp_path: Path) -> None:
    assert FileDialer(tmp_path).owner() is None


def test_who_only_looks_is_told_of_a_directory_without_data(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="holds no data of tq"):
        FileDialer(tmp_path / "none").check_holds_data()

    assert not (tmp_path / "none").exists()


@pytest.mark.acceptance
def test_a_program_that_declares_tasks_loads_no_broker() -> None:
    program = (
        "import sys; from tq import App; app = App('memory:'); app.task(len); "
        "print([name for name in sys.modules if name.startswith(('tq.broker', 'tq.engine', 'tq.store'))])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "[]\n"
