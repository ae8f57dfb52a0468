"""The one door to the brokers that run inside this process: ``App("memory:")``, ``App("file:./tq-data")``.

All else in a user's program reaches a broker by the wire only, and so do these: their
connections are socket pairs, or come from the unix socket in the directory, with the
real protocol on them.

Invariants: the broker is imported and started when a connection needs it, not before.
This process has at most one broker of a directory, and a fork of it uses none of them.
"""

import asyncio
import atexit
import errno
import os
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tq.client.local import connect_local
from tq.core.errors import BrokerUnavailable, ConfigError, StoreError, UsageError

if TYPE_CHECKING:
    from tq.broker.embedded import EmbeddedBroker

# Of a path that no time makes a data directory: it is a file, read-only, or another user's.
_LASTING = {errno.EEXIST, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}
_T = TypeVar("_T")


class MemoryDialer:
    """A `tq.client.dialer.Dialer` of a broker that it starts itself, on memory, in a thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._opening: Future[EmbeddedBroker] | None = None
        self._is_closed = False

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect the protocol that *factory* returns, without a stop of the loop while the broker starts.

        Raises:
            BrokerUnavailable: The broker cannot start.
            UsageError: It was closed, or is in another process.
        """
        broker = await asyncio.wrap_future(self._opened())
        return await _on(broker.connect(), factory)

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Return a connected stream socket.

        Raises:
            BrokerUnavailable: The broker cannot start, or not within *timeout_s*.
            UsageError: It was closed, or is in another process.
        """
        opening = self._opened()
        try:
            broker = opening.result(timeout_s)
        except TimeoutError:
            raise BrokerUnavailable("the broker of App('memory:') is still being started.") from None
        return broker.connect()

    def close(self) -> None:
        """Stop the broker, and with it all it holds.  Idempotent; does nothing in a forked process."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            opening, self._opening = self._opening, None
        if opening is not None and opening.exception() is None:
            opening.result().close()

    def _opened(self) -> "Future[EmbeddedBroker]":
        """Have the broker started, unless it is; what is returned ends once it serves, or cannot."""
        if self._pid != os.getpid():
            raise UsageError(
                "the broker of App('memory:') lives in the process that started it, and this is a fork "
                "of that one: start a tq-broker, and give both its URL"
            )
        with self._lock:
            if self._is_closed:
                raise UsageError("the broker of this App('memory:') was closed, with all it held")
            if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
                self._opening = _in_a_thread(_open_memory)
            return self._opening


def _open_memory() -> "EmbeddedBroker":
    with _here.loading:
        from tq.broker.embedded import open_memory  # noqa: PLC0415  # the door; see above

    try:
        return open_memory()
    # Of the last kind is a system without room for another thread.
    except (StoreError, OSError, RuntimeError) as error:
        raise BrokerUnavailable(f"the broker of App('memory:') cannot start: {error}.") from error


class FileDialer:
    """A `tq.client.dialer.Dialer` of the broker on the data in *directory*, in whichever process that runs.

    Each call joins the process that has the directory open; where none has, this one
    opens it and serves the others.  What keeps it from that is `BrokerUnavailable`, whose
    text says what it is: another process may be about to do better.  Where none could, it is a `ConfigError`.

    Raises:
        ConfigError: This system has no unix sockets.
    """

    def __init__(self, directory: Path) -> None:
        if not hasattr(socket, "AF_UNIX") or not hasattr(os, "register_at_fork"):
            raise ConfigError(
                "a broker on files inside a program needs Linux: start tq-broker on one, and give its URL"
            )
        self.directory = directory

    @property
    def is_owner(self) -> bool:
        """Whether the broker is in this process."""
        return _here.broker(self.directory) is not None

    def owner(self) -> str | None:
        """Return who has the directory, in his own words; None where he has left none."""
        with suppress(OSError):
            text = (self.directory / "owner").read_text("utf-8", "replace").strip()
            # How to join him is of no use to one who has tried.
            said = text.partition(": join it by")[0]
            return f"data directory {self.directory} is open already, {said}" if said else None
        return None

    def check_holds_data(self) -> None:
        """Make sure that a broker has been on the directory at some time: who only looks must not make one.

        Raises:
            BrokerUnavailable: None has.
        """
        if not (self.directory / "format").exists():
            raise BrokerUnavailable(
                f"{self.directory} holds no data of tq: no App or worker with the URL file:{self.directory} has run yet"
            )

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect the protocol that *factory* returns, however long it takes to open the directory.

        Raises:
            BrokerUnavailable: No process serves the directory, and this one cannot.
            ConfigError: It cannot, and trying again is of no use.
        """
        ours = self._joined()
        if ours is None:
            # What keeps the broker from serving is told below, unless another process was faster.
            await asyncio.wrap_future(self._claim())
            ours = self._joined_at_last()
        return await _on(ours, factory)

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Return a connected stream socket.

        Raises:
            BrokerUnavailable: No process serves the directory, and this one cannot, or not within *timeout_s*.
            ConfigError: It cannot, and trying again is of no use.
        """
        ours = self._joined()
        if ours is None:
            try:
                self._claim().result(timeout_s)
            except TimeoutError:
                raise BrokerUnavailable(f"data directory {self.directory} is still being opened.") from None
            ours = self._joined_at_last()
        return ours

    def close(self) -> None:
        """Hand the directory over, unless another of this process uses its broker.  Safe to call twice."""
        _here.leave(self.directory, self)

    def _joined(self) -> socket.socket | None:
        broker = _here.broker(self.directory)
        if broker is None or not broker.has_started:
            return connect_local(self.directory)
        try:
            ours = broker.connect()
        except StoreError:  # It ended just now.
            return None
        _here.join(self.directory, self)
        return ours

    def _joined_at_last(self) -> socket.socket:
        """Join the broker that this process has tried to start, or the one that was in its way."""
        trouble = _here.trouble(self.directory)
        ours = self._joined()
        if ours is None:
            if isinstance(trouble, StoreError) and _is_lasting(trouble.__cause__):
                raise ConfigError(f"{trouble}; give another directory") from None
            raise BrokerUnavailable(f"{trouble or f'the broker of {self.directory} ended as it began'}.")
        return ours

    def _claim(self) -> "Future[None]":
        return _here.claim(self.directory, self)


class _Here:
    """The brokers on directories that this process has, and who uses them."""

    def __init__(self) -> None:
        # Held over each fork too: a child that finds a module half imported waits for it for ever.
        self.loading = threading.RLock()
        # Held over each fork: none comes between the start of a broker and the note of it.
        self._lock = threading.RLock()
        self._brokers: dict[str, EmbeddedBroker] = {}
        self._users: dict[str, weakref.WeakSet[FileDialer]] = {}
        # What is done for those who wait for a broker, each in a thread; the last of each directory.
        self._openings: dict[str, Future[None]] = {}
        self._has_had = False
        self._is_a_fork = False
        self._is_ending = False
        # Of the brokers that are being closed, a fork has copies too.
        self._leaving: set[EmbeddedBroker] = set()

    def broker(self, directory: Path) -> "EmbeddedBroker | None":
        """Return the broker of *directory*, which may still be opening it, if it is in this process."""
        broker = self._brokers.get(os.path.realpath(directory))
        return broker if broker is not None and broker.is_alive else None

    def trouble(self, directory: Path) -> BaseException | None:
        """Return what kept the last broker of this process from opening *directory*."""
        broker = self._brokers.get(os.path.realpath(directory))
        return broker.started.exception() if broker is not None and broker.started.done() else None

    def join(self, directory: Path, user: FileDialer) -> None:
        """Note that *user* uses the broker of *directory*."""
        with self._lock:
            self._users.setdefault(os.path.realpath(directory), weakref.WeakSet()).add(user)

    def claim(self, directory: Path, user: FileDialer) -> "Future[None]":
        """Have a broker of *directory* in this process; what is returned ends once it serves, or cannot.

        What kept it from that is its `trouble`.

        Raises:
            BrokerUnavailable: This process cannot have one: here, or later in the future.
            ConfigError: In the future: a variable of the environment for the broker's settings is wrong.
        """
        key = os.path.realpath(directory)
        with self._lock:
            self._check_may_own(directory)
            self.join(directory, user)
            opening = self._openings.get(key)
            if opening is None or opening.done():
                opening = self._openings[key] = _in_a_thread(lambda: self._open(directory))
            return opening

    def _open(self, directory: Path) -> None:
        """Start the broker of *directory*, if there is none and somebody still wants it; wait until it serves."""
        key = os.path.realpath(directory)
        try:
            with self.loading:
                from tq.broker.embedded import check_directory, open_directory  # noqa: PLC0415  # the door; see above

                check_directory(directory, os.environ)
            with self._lock:
                self._check_may_own(directory)
                if not self._users.get(key):
                    return
                broker = self.broker(directory)
                if broker is None:
                    # Before its thread opens RocksDB.
                    self._has_had = True
                    broker = self._brokers[key] = open_directory(directory, os.environ)
        # Of the last kind is a system without room for another thread.
        except (OSError, RuntimeError) as error:
            raise BrokerUnavailable(f"no process serves data directory {directory}: {error}.") from error
        broker.started.exception()

    def _check_may_own(self, directory: Path) -> None:
        if self._is_a_fork:
            raise BrokerUnavailable(
                f"no process serves data directory {directory}, and this one was forked from one that had a broker, "
                "so that it cannot have its own: keep another process on the directory, such as a tq-worker."
            )
        if self._is_ending:
            raise BrokerUnavailable(f"no process serves data directory {directory}, and this one is about to end.")

    def leave(self, directory: Path, user: FileDialer) -> None:
        """Note that *user* uses the broker of *directory* no more, and close it after the last one."""
        key = os.path.realpath(directory)
        with self._lock:
            users = self._users.get(key)
            if users is None:
                return
            users.discard(user)
            if users:
                return
            broker = self._brokers.pop(key, None)
            if broker is None:
                return
            self._leaving.add(broker)
        broker.close()
        with self._lock:
            self._leaving.discard(broker)

    def end(self) -> None:
        """Close all brokers, at the end of the process."""
        with self._lock:
            self._is_ending = True
            brokers = list(self._brokers.values())
        for broker in brokers:
            broker.close()

    def forks(self) -> None:
        """Let no other thread be at work here until the fork is made."""
        self.loading.acquire()
        self._lock.acquire()

    def has_forked(self) -> None:
        """Go on in the parent."""
        self._lock.release()
        self.loading.release()

    def forked(self) -> None:
        """Forget all of it in a child: its threads and locks stayed with the parent."""
        for broker in (*self._brokers.values(), *self._leaving):
            broker.abandon()
        # RocksDB's own threads stayed too, and it does not start them again.
        self._is_a_fork = self._is_a_fork or self._has_had
        self._lock = threading.RLock()
        self.loading = threading.RLock()
        self._brokers = {}
        self._users = {}
        self._openings = {}
        self._leaving = set()


def _is_lasting(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in _LASTING


_here = _Here()
# What is registered first is called last: what the program does at its end still finds its broker.
atexit.register(_here.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_here.forks, after_in_parent=_here.has_forked, after_in_child=_here.forked)


def _in_a_thread(work: Callable[[], _T]) -> "Future[_T]":
    """Do *work*, which waits, in a thread of its own; nobody who waits for it can cancel it for the others."""
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - the outermost of this thread: it is told to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="tq opening", daemon=True).start()
    return future


async def _on(ours: socket.socket, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
    ours.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=ours)
    return transport
