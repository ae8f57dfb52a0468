"""Handlers in processes of their own: for CPU work, and for a time limit that nothing escapes.

Each child (`tq.worker.pools.child`) imports the app and runs one task at a time.  Between
the two go bytes: a task's record one way, its outcome the other.  A child that dies takes
the one task with it that it ran: that attempt has failed, and another child takes its
place.

Invariant: a child never outlives its parent: it ends when its socket does.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import tq
from tq.core.errors import ConfigError
from tq.protocol.frames import FrameReader, encode_frame
from tq.worker.assignment import Assignment
from tq.worker.executor import Executor, process_died, stopped
from tq.worker.pools.pipe import Kind, Run, Setup, decode_ended, decode_text, encode
from tq.worker.pools.pool import Finished

_log = logging.getLogger(__name__)

# A handler that is interrupted may put things in order; then its process is killed.
_KILL_AFTER_S = 2.0
# The kernel reaps a killed process at once, unless it hangs in the kernel itself.
_ABANDON_AFTER_S = _KILL_AFTER_S + 3.0
# Children exit by themselves when their socket closes.
_EXIT_S = 2.0
_RESTART_S = 1.0

# Not `-m`: where this package lies may be known to this process only (its sys.path).
# Ctrl-C reaches the whole terminal: a child, which leaves it to its parent, hears of it while it is still imported too.
_BOOTSTRAP = (
    "import signal, sys; signal.signal(signal.SIGINT, lambda *_: None); sys.path.insert(0, sys.argv[1]); "
    "from tq.worker.pools.child import main; main()"
)
_ROOT = str(Path(tq.__file__).parent.parent)


class ProcessPool:
    """*concurrency* children, which import *app* (``module:name``) and log as *logs* says (see `pipe.Setup`)."""

    def __init__(self, executor: Executor, concurrency: int, app: str, worker: str, logs: Sequence[str] = ()) -> None:
        self._executor = executor
        self._concurrency = concurrency
        self._app = app
        self._worker = worker
        self._logs = list(logs)
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []
        self._waiting: deque[Assignment] = deque()
        self._seats: list[asyncio.Task[None]] = []
        self._is_stopping = False

    async def start(self, finished: Finished) -> None:
        """Start the children, and wait until they are ready; *finished* is told of each end.

        Raises:
            ConfigError: A child cannot be started, or cannot import the app.
        """
        self._finished = finished
        try:
            children = [await self._spawn() for _ in range(self._concurrency)]
            await asyncio.wait([child.ready for child in children])
            failures = [error for child in children if (error := child.ready.exception()) is not None]
            if failures:
                raise failures[0]
        except BaseException:  # a cancellation, too, leaves no child behind
            await self.stop()
            raise
        self._seats = [asyncio.create_task(self._keep_seat(child)) for child in children]

    def run(self, work: Assignment) -> None:
        """Give *work* to an idle child, or to the next that is: one may just be replaced."""
        if self._idle:
            self._idle.pop().run(work, self._executor.result_bytes_max)
        else:
            self._waiting.append(work)

    def interrupt(self, work: Assignment) -> float:
        """Interrupt the handler, and kill its process two seconds later."""
        child = work.run_by
        if isinstance(child, _Child):
            child.interrupt(work)
        else:
            self._waiting.remove(work)
            asyncio.get_running_loop().call_soon(self._finished, work, stopped(work))
        return _ABANDON_AFTER_S

    def abandon(self, work: Assignment) -> None:
        """Leave a process that cannot even be killed to the kernel."""
        if isinstance(work.run_by, _Child):
            work.run_by.work = None

    async def stop(self) -> None:
        """Close the children's sockets, at which they exit; kill those that do not."""
        self._is_stopping = True
        for child in self._children:
            child.close()
        exits = [asyncio.create_task(child.process.wait()) for child in self._children]
        if exits:
            await asyncio.wait(exits, timeout=_EXIT_S)
        for child in self._children:
            child.kill()
        await asyncio.gather(*exits, *self._seats)

    def _is_idle(self, child: "_Child") -> None:
        if self._waiting:
            child.run(self._waiting.popleft(), self._executor.result_bytes_max)
        else:
            self._idle.append(child)

    async def _keep_seat(self, child: "_Child | None") -> None:
        """Have a child where *child* is, for as long as the pool runs."""
        while child is not None:
            await self._bury(child)
            child = await self._replacement()

    async def _replacement(self) -> "_Child | None":
        while not self._is_stopping:
            try:
                child = await self._spawn()
                await child.ready
                return child
            except ConfigError as error:
                if not self._is_stopping:
                    _log.error("%s; trying again", error)
                    await asyncio.sleep(_RESTART_S)
        return None

    async def _bury(self, child: "_Child") -> None:
        """Wait for the end of *child*, and settle the task that it ran."""
        how = _how_it_ended(await child.process.wait())
        # What it sent last is still to be read; what it started itself may keep the socket open.
        await asyncio.wait([child.closed], timeout=_EXIT_S)
        child.close()
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        work, child.work = child.work, None
        if work is not None and not child.has_started and work.stop is None:
            # It was killed while it was idle, as this task came: the task has nothing to do with it.
            work.run_by = None
            self._waiting.appendleft(work)
        elif work is not None:
            text = f"process {child.process.pid}, which ran the task, ended: {how}"
            self._finished(work, process_died(text) if work.stop is None else stopped(work))
        if not self._is_stopping:
            _log.warning("child process %d ended (%s); another takes its place", child.process.pid, how)

    async def _spawn(self) -> "_Child":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", _BOOTSTRAP, _ROOT, self._app, stdin=theirs.fileno()
                )
            except BaseException as error:
                ours.close()
                if isinstance(error, OSError):
                    raise ConfigError(f"a child process cannot be started: {error}") from error
                raise
        child = _Child(process, is_idle=self._is_idle, finished=self._finished)
        self._children.add(child)
        await asyncio.get_running_loop().create_unix_connection(lambda: child, sock=ours)
        if self._is_stopping:
            child.close()
        setup = Setup(self._app, self._worker, sys.path, logging.getLogger().getEffectiveLevel(), self._logs)
        child.send(Kind.SETUP, 0, encode(setup))
        return child


class _Child(asyncio.Protocol):
    """The parent's end of one child; ``work`` is what it was given, ``has_started`` whether it runs it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        is_idle: Callable[["_Child"], None],
        finished: Finished,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.work: Assignment | None = None
        self.has_started = False
        self.ready: asyncio.Future[None] = loop.create_future()
        # Nobody asks any more for the failure of a child that was starting while the pool ended.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.closed: asyncio.Future[None] = loop.create_future()
        self._is_idle = is_idle
        self._finished = finished
        self._loop = loop
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._runs = 0

    def run(self, work: Assignment, result_bytes_max: int) -> None:
        """Have it run *work*."""
        self.work = work
        self.has_started = False
        work.run_by = self
        self._runs += 1
        self.send(Kind.RUN, self._runs, encode(Run(work.task, result_bytes_max)))

    def interrupt(self, work: Assignment) -> None:
        """Have it interrupt *work*, and kill it if it has not heeded in time."""
        self.send(Kind.STOP, self._runs, encode(work.stop))
        self._loop.call_later(_KILL_AFTER_S, self._kill_over, work)

    def send(self, kind: Kind, correlation: int, body: bytes) -> None:
        """Write one frame; nothing if it has ended."""
        if self._transport is not None:
            self._transport.write(encode_frame(kind, correlation, body))

    def close(self) -> None:
        """Close the socket, at which it exits."""
        if self._transport is not None:
            self._transport.abort()

    def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            match Kind(frame.kind):
                case Kind.STARTED:
                    self.has_started = True
                case Kind.OUTCOME:
                    self._ended(frame.body)
                case Kind.READY:
                    self.ready.set_result(None)
                    self._is_idle(self)
                case Kind.BROKEN:
                    text = f"a child process cannot import the app:\n\n{decode_text(frame.body).rstrip()}"
                    self.ready.set_exception(ConfigError(text))
                case Kind.SETUP | Kind.RUN | Kind.STOP:
                    raise AssertionError("a child sends no such frame")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.closed.set_result(None)
        if not self.ready.done():
            text = f"child process {self.process.pid} ended before it was ready; its standard error may say why"
            self.ready.set_exception(ConfigError(text))

    def _ended(self, body: bytes) -> None:
        work, self.work = self.work, None
        # None: it was abandoned, yet has come to an end.
        if work is not None:
            self._finished(work, decode_ended(body).outcome)
        self._is_idle(self)

    def _kill_over(self, work: Assignment) -> None:
        if self.work is work:
            self.kill()


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
