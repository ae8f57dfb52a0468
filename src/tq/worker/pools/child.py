"""A child of the process pool: imports the app, then runs one task after the other.

The main thread runs handlers, as they may expect; another reads the socket, so that a
stop, or the end of the parent, is heard while a handler runs.

Invariant: the child ends when its socket does; a signal from elsewhere does not end it:
what becomes of its task is for the parent to say.
"""

import faulthandler
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from queue import SimpleQueue
from types import FrameType

from tq.app.context import SoftTimeout, TaskContextFilter
from tq.app.registry import Registry
from tq.protocol.frames import Frame, FrameReader, encode_frame
from tq.worker.assignment import Assignment
from tq.worker.executor import Executor, reminded, stopped
from tq.worker.forks import let_go
from tq.worker.lifespan import Lifespan
from tq.worker.pools.driver import Driver
from tq.worker.pools.memory import resident_bytes
from tq.worker.pools.pipe import Kind, Setup, decode_run, decode_setup, decode_stop, encode, ended

_READ_BYTES = 65_536
# What the parent sees of a child that found itself alone; it is EX_UNAVAILABLE of sysexits.h.
_EXIT_ALONE = 69


class TaskInterrupted(KeyboardInterrupt):
    """Raised inside a handler that is to stop: a KeyboardInterrupt, which an event loop lets through."""


class Child:
    """One child process, from its socket's first frame to its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._inbox: SimpleQueue[Frame | None] = SimpleQueue()
        self._is_alone = False
        self._work: Assignment | None = None
        self._is_spared = False
        self._driver = Driver()
        self._main_thread = threading.get_ident()

    def serve(self) -> None:
        """Run tasks until the parent closes the socket."""
        # Ctrl-C reaches the whole terminal, and a service manager's SIGTERM the whole group: the parent
        # decides.  A handler of ours, unlike SIG_IGN, is not passed on to the programs that tasks start.
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, self._interrupt)
        # A copy that a handler forks has no thread that reads, and nothing to say.
        let_go(self._connection.close)
        threading.Thread(target=self._read, name="tq-parent", daemon=True).start()
        first = self._inbox.get()
        if first is None:
            return
        setup = decode_setup(first.body)
        try:
            sys.path[:] = setup.sys_path
            if setup.logs:
                # First, as in the parent: what the app says while it is imported is logged like the rest.
                _log_as_told(*setup.logs)
            registry = _import_app(setup)
            lifespan = Lifespan(registry.hooks)
            if not registry.hooks.is_empty:
                self._driver(lifespan.start())
        except BaseException:  # noqa: BLE001  # another's code; the parent reports it
            self._send(Kind.BROKEN, 0, encode(traceback.format_exc()))
            return
        if not setup.logs:
            _log_text(setup.log_level)
        executor = Executor(registry, setup.worker)
        executor.provided = lifespan.provided
        driver = self._driver
        self._tells_memory = setup.tells_memory
        self._send(Kind.READY, 0)
        while (frame := self._inbox.get()) is not None:
            self._run(frame, executor, driver)
        if not registry.hooks.is_empty:
            driver(lifespan.stop())
        driver.close()

    def _run(self, frame: Frame, executor: Executor, driver: Driver) -> None:
        run = decode_run(frame.body)
        executor.result_bytes_max = run.result_bytes_max
        work = Assignment(0, frame.correlation, run.task, executor.plan(run.task.spec), 0.0)
        # First this, then that; the reader does it in the opposite order: one of the two sees the other.
        self._is_spared = False
        self._work = work
        if self._is_alone:
            return
        self._send(Kind.STARTED, frame.correlation)
        try:
            outcome = executor.run_blocking(work, driver, self._spare)
            self._spare()
            self._work = None
        except (TaskInterrupted, SoftTimeout):
            # It came before the handler was called, or when it was over.
            self._work = None
            outcome = reminded(work) if work.stop is None else stopped(work)
        self._send(
            Kind.OUTCOME, frame.correlation, encode(ended(outcome, resident_bytes() if self._tells_memory else 0))
        )

    def _spare(self) -> None:
        """Raise no `SoftTimeout` any more: the handler is over."""
        self._is_spared = True

    def _send(self, kind: Kind, correlation: int, body: bytes = b"") -> None:
        try:
            self._connection.sendall(encode_frame(kind, correlation, body))
        except OSError:
            # The parent is gone, or a handler has closed what it did not open, which a thread that waits in
            # `recv` does not see. What cannot be told is for the parent to say: this process died under its task.
            os._exit(_EXIT_ALONE)

    def _read(self) -> None:
        reader = FrameReader()
        while data := self._receive():
            for frame in reader.feed(data):
                if frame.kind in (Kind.REMIND, Kind.STOP):
                    self._tell(frame)
                else:
                    self._inbox.put(frame)
        self._is_alone = True
        if self._work is not None:
            os._exit(_EXIT_ALONE)
        self._inbox.put(None)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(_READ_BYTES)
        except OSError:
            return b""

    def _tell(self, frame: Frame) -> None:
        work = self._work
        if work is not None and work.index == frame.correlation:
            if frame.kind == Kind.STOP:
                work.stop = decode_stop(frame.body)
            else:
                work.soft_is_due = True
            # A real signal: it also wakes a handler that sleeps in a system call.
            signal.pthread_kill(self._main_thread, signal.SIGTERM)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        work = self._work
        if work is None:
            return
        if work.stop is not None:
            raise TaskInterrupted
        if work.soft_is_due and work.plan.is_async:
            self._driver.cancel()
        elif work.soft_is_due and not self._is_spared:
            work.soft_is_due = False
            raise SoftTimeout


def _import_app(setup: Setup) -> Registry:
    module, _, name = setup.app.partition(":")
    app = importlib.import_module(module)
    for part in name.split("."):
        app = getattr(app, part)
    registry = app.registry
    assert isinstance(registry, Registry)
    registry.check()
    return registry


def _log_as_told(function: str, *arguments: str) -> None:
    """Log as the program does whose worker this is."""
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(*arguments)


def _log_text(level: int) -> None:
    """Log to standard error, unless the app has set up logging itself."""
    handler = logging.StreamHandler()
    handler.addFilter(TaskContextFilter())
    text = "%(asctime)s %(levelname)s %(name)s %(task_name)s %(task_id)s: %(message)s"
    logging.basicConfig(level=level, handlers=[handler], format=text)


def main() -> None:
    """Serve on the socket that is this process's standard input; handlers find an empty one there."""
    # The stack of a crash in native code is worth more than the signal's number alone.
    faulthandler.enable()
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    with connection:
        Child(connection).serve()
