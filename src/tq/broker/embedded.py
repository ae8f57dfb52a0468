"""The embedded broker: the real service in a thread of this process, on memory or on a directory.

Its clients in this process speak the real protocol to it over socket pairs, so that what
passes in a test passes against a daemon; other processes join the broker of a directory
at the unix socket in it.

Invariants: other threads hand sockets over, ask whether it lives and tell it to stop; all
else is touched by its own thread alone, and in a fork by the one thread that is there.  The
socket in the directory is made by whoever has the directory's lock, and by nobody else.
"""

import asyncio
import ctypes
import difflib
import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from tq.broker.config import BrokerSettings
from tq.broker.opening import check_installed, open_store
from tq.broker.service import BrokerService
from tq.broker.sources import Log, real_sources
from tq.client.local import SOCKET_FILE, socket_path
from tq.core.errors import BrokerUnavailable, ConfigError, StoreError
from tq.core.quantities import parse_quantity, unit_of
from tq.store.base import OPEN_FILES_MAX, Store
from tq.store.memory import MemoryStore

SETTINGS = (
    "durability",
    "sync_interval_ms",
    "disk_reserve_bytes",
    "block_cache_bytes",
    "payload_bytes_max",
    "heartbeat_ms",
    "lease_ms",
    "frame_memory_ms",
    "dead_retention_ms",
)
"""What the broker of a directory takes from the environment, as tq-broker does: ``TQ_DURABILITY`` and so on."""

_START_S_MAX = 10.0
# An end of the program waits for requests under way, but never for long: who is not answered asks the next owner.
_DRAIN_MS = 2_000
_CLOSE_S_MAX = 10.0
_FLUSH_S_MAX = 0.5
_BACKLOG = 1_024
# Some letters of a variable's name, or its unit; no setting of another program is as near as this.
_SLIP_MIN = 0.8
_ACCEPT_AGAIN_S = 0.1
# Closed connections are forgotten when so many are noted, or twice as many as were open the last time.
_NOTED_MIN = 64

_log = logging.getLogger("tq.broker")
# A program that sets up no log gets no lines of ours on its standard error; what fails is told to its callers.
_log.addHandler(logging.NullHandler())


class EmbeddedBroker:
    """A broker that ends with `close` or with the process.

    *serve_in* is the directory in which other processes find its socket; the store must
    hold the lock of that directory.  `started` ends when it serves, or with what kept it
    from that: a `StoreError`.
    """

    def __init__(
        self,
        settings: BrokerSettings | None = None,
        open_its_store: Callable[[], Store] = MemoryStore,
        serve_in: Path | None = None,
    ) -> None:
        self.started: Future[None] = Future()
        # From now on nobody who waits for it can cancel it for the others.
        self.started.set_running_or_notify_cancel()
        self._settings = settings or BrokerSettings(store="memory", drain_ms=_DRAIN_MS)
        self._open_store = open_its_store
        self._serve_in = serve_in
        # A plain loop, whatever the program's policy: `abandon` must be able to close what it has open. Without
        # debugging, whatever the program's: its loop is not ours to be told about.
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_debug(False)
        self._stop = asyncio.Event()
        self._service: BrokerService | None = None
        self._store: Store | None = None
        # All of our sockets, for `abandon`, and what is on them, for the end: those that other threads hand over
        # (append and popleft of a deque are whole), and those of our thread.
        self._handed: deque[socket.socket] = deque()
        self._noted: dict[socket.socket, asyncio.Transport | None] = {}
        self._noted_max = _NOTED_MIN
        self._accepting: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="tq embedded broker", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it serves, or is about to."""
        return self._thread.is_alive() and not self._stop.is_set()

    @property
    def has_started(self) -> bool:
        """Whether it serves; what kept it from that is in `started`."""
        return self.started.done() and self.started.exception() is None and self.is_alive

    def connect(self) -> socket.socket:
        """Return our end of a new connection to the broker, which has started.

        Raises:
            StoreError: The broker is closed, or stops.
        """
        if not self.is_alive:
            raise StoreError("the embedded broker is closed")
        ours, theirs = socket.socketpair()
        self._handed.append(theirs)
        try:
            self._loop.call_soon_threadsafe(self._take_handed)
        except RuntimeError:  # The loop was closed just now.
            ours.close()
            theirs.close()
            raise StoreError("the embedded broker is closed") from None
        return ours

    def close(self, wait_s: float = _CLOSE_S_MAX) -> None:
        """Stop the broker within *wait_s*, and with it everything it holds in memory. Idempotent.

        One that takes longer is logged, and ends later, or with the process.
        """
        with suppress(RuntimeError):  # The loop is closed already.
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            _log.error("embedded.close not_ended_after_s=%g directory=%s", wait_s, self._serve_in or "none")

    def abandon(self) -> None:
        """Let go of everything in a fork of its process, which has none of its threads.

        Copies of its sockets would keep connections open after the parent's end.  The
        rest must not be touched: no destructor may write to files that are the parent's.
        """
        self._close_all()
        # Never destroyed, not even at the end of the interpreter.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        _end_without_destructors()

    # ------------------------------------------------------------------------------------------ in its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        except Exception as error:  # noqa: BLE001 - the outermost of this thread: it is told to who waits, or logged
            if self.started.done():
                _log.error("embedded.failed", exc_info=error)
            else:
                self.started.set_exception(error)
        finally:
            self._loop.close()
            self._close_all()

    def _close_all(self) -> None:
        """Close the sockets whatever is on them."""
        for left in (*self._noted, *self._handed):
            left.close()

    def _note(self, ours: socket.socket, transport: asyncio.Transport | None = None) -> None:
        """Remember *ours*, and what is on it, until some time after it is closed."""
        if len(self._noted) >= self._noted_max:
            self._noted = {each: on_it for each, on_it in self._noted.items() if each.fileno() != -1}
            self._noted_max = max(_NOTED_MIN, 2 * len(self._noted))
        self._noted[ours] = transport

    async def _live(self) -> None:
        self._store = store = self._open_store()
        try:
            service = BrokerService(store, self._settings, real_sources(), standard_log(_log), version="embedded")
            await service.start()
            self._service = service
            listener = None if self._serve_in is None else self._listen(self._serve_in)
            try:
                self.started.set_result(None)
                await self._serve(service)
            finally:
                self._stop.set()
                for task in self._accepting:
                    task.cancel()
                await asyncio.gather(*self._accepting, return_exceptions=True)
                if listener is not None and self._serve_in is not None:
                    listener.close()
                    (self._serve_in / SOCKET_FILE).unlink(missing_ok=True)
                await service.stop()
                await self._flush()
        finally:
            self._service = None
            # Last, and with it the lock: what was acknowledged is in it, and the next owner finds no socket of ours.
            store.close()

    async def _serve(self, service: BrokerService) -> None:
        """Return once it is told to stop, or a commit has failed: the next owner starts from what is on disk."""
        assert service.failed is not None
        stopped = self._loop.create_task(self._stop.wait())
        ends: list[asyncio.Future[Any]] = [stopped, service.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if service.failed.done():
            service.failed.exception()  # It has been logged.

    def _listen(self, directory: Path) -> socket.socket:
        """Make the socket in *directory*, in the place of any that a killed owner has left, at one stroke."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._note(listener)
        fresh = directory / f"{SOCKET_FILE}.new"
        try:
            fresh.unlink(missing_ok=True)
            with socket_path(directory, fresh.name) as path:
                listener.bind(path)
            # Before it listens nobody can connect.
            fresh.chmod(0o600)
            listener.setblocking(False)
            listener.listen(_BACKLOG)
            fresh.replace(directory / SOCKET_FILE)
        except OSError as error:
            listener.close()
            raise StoreError(f"data directory {directory}: no socket can be made there: {error}") from error
        self._spawn(self._accept_all(listener))
        return listener

    async def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                theirs, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors, most likely: it may have some when others have closed theirs.
                _log.warning("embedded.accept error=%s", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            self._note(theirs)
            await self._take(theirs)

    def _take_handed(self) -> None:
        theirs = self._handed.popleft()
        self._note(theirs)
        if self._service is None or self._stop.is_set():
            theirs.close()
        else:
            self._spawn(self._take(theirs))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _take(self, theirs: socket.socket) -> None:
        if self._service is None or self._stop.is_set():
            theirs.close()
            return
        theirs.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(self._service.connection, theirs)
        self._note(theirs, transport)

    async def _flush(self) -> None:
        """Let what was said go out, for a moment, then end what still has not."""
        deadline = self._loop.time() + _FLUSH_S_MAX
        for ours, transport in self._noted.items():
            if transport is None:
                ours.close()
        # A closed transport closes its socket on the next turn of the loop, or once all has gone out.
        await asyncio.sleep(0)
        while self._loop.time() < deadline and any(each.fileno() != -1 for each in self._noted):  # noqa: ASYNC110 - a socket has no event for its end
            await asyncio.sleep(0.005)
        for transport in self._noted.values():
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _end_without_destructors() -> None:
    """Have this process end as soon as the interpreter has: RocksDB's destructors wait for threads it does not have.

    They are registered already, and what is registered last is called first.  Source:
    on_exit(3), whose functions get the exit status first, as _exit(2) takes it.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc has it, musl does not
        libc.on_exit(libc._exit, None)  # noqa: SLF001 - its name in C


def standard_log(logger: logging.Logger) -> Log:
    """Return a service's log that writes to the standard library's *logger*."""
    return Log(*(_Writer(logger, level) for level in (logging.INFO, logging.WARNING, logging.ERROR)))


class _Writer:
    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level

    def __call__(self, event: str, *, exc_info: BaseException | None = None, **values: object) -> None:
        if self._logger.isEnabledFor(self._level):
            text = " ".join([event, *(f"{name}={value}" for name, value in values.items())])
            self._logger.log(self._level, text, exc_info=exc_info)


# ---------------------------------------------------------------------------------------------------- opening


def open_memory() -> EmbeddedBroker:
    """Start an embedded broker on memory, and wait until it serves.

    Raises:
        StoreError: It could not start, or not in ten seconds.
    """
    broker = EmbeddedBroker()
    try:
        broker.started.result(_START_S_MAX)
    except TimeoutError:
        broker.close(0)
        raise StoreError(f"the embedded broker did not start within {_START_S_MAX:g} s") from None
    return broker


def check_directory(directory: Path, environment: Mapping[str, str]) -> BrokerSettings:
    """Do what of `open_directory` can be done before: load RocksDB, which takes a while; return the settings.

    Raises:
        ConfigError, BrokerUnavailable: As `open_directory` does.
    """
    settings = settings_for(directory, environment)
    try:
        check_installed(settings)
    except ConfigError as error:
        raise BrokerUnavailable(f"no process serves data directory {directory}: {error}.") from error
    return settings


def open_directory(directory: Path, environment: Mapping[str, str]) -> EmbeddedBroker:
    """Start an embedded broker on the data in *directory*; its `EmbeddedBroker.started` says whether it could.

    Raises:
        ConfigError: A variable of *environment* is not what its setting may be, or meant to be one.
        BrokerUnavailable: RocksDB is not installed; another process may have it.
    """
    import resource  # noqa: PLC0415 - absent on Windows, where only the broker on memory runs.

    settings = check_directory(directory, environment)
    # The process may need most of its descriptors for itself.
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY:
        settings = msgspec.structs.replace(settings, connections_max=min(settings.connections_max, max(1, limit // 2)))
    files = OPEN_FILES_MAX if limit == resource.RLIM_INFINITY else min(OPEN_FILES_MAX, max(32, limit // 4))
    holder = f"{Path(sys.argv[0] or sys.executable).name}, which embeds a broker: join it by file:{directory}"
    return EmbeddedBroker(settings, lambda: open_store(settings, holder, files), directory)


def settings_for(directory: Path, environment: Mapping[str, str]) -> BrokerSettings:
    """Return the settings of a broker on *directory*: those of `SETTINGS` in *environment*, and the defaults.

    Raises:
        ConfigError: A variable is not what its setting may be, or all but has the name of one.
    """
    _check_names(environment)
    said: dict[str, object] = {}
    for name in SETTINGS:
        if text := environment.get(f"TQ_{name.upper()}"):
            try:
                said[name] = parse_quantity(text, unit_of(name)) if unit_of(name).name else text
            except ValueError as error:
                raise ConfigError(f"TQ_{name.upper()}: {error}") from None
    try:
        return msgspec.convert(
            {"data": os.fspath(directory), "drain_ms": _DRAIN_MS, **said}, BrokerSettings, dec_hook=_path
        )
    except msgspec.ValidationError as error:
        raise ConfigError(f"the environment's TQ_ variables for the broker of {directory}: {error}") from None


def _check_names(environment: Mapping[str, str]) -> None:
    """Refuse a slip of the pen; variables of the other programs and settings of a daemon are none of ours."""
    known = {f"TQ_{name.upper()}" for name in (*SETTINGS, *BrokerSettings.__struct_fields__)}
    ours = [f"TQ_{name.upper()}" for name in SETTINGS]
    for name, value in environment.items():
        if value and name.startswith("TQ_") and name not in known:
            for meant in difflib.get_close_matches(name, ours, 1, _SLIP_MIN):
                raise ConfigError(f"{name}: there is no such variable; did you mean {meant}?")


def _path(kind: type, value: object) -> object:
    assert kind is Path
    return Path(str(value))
