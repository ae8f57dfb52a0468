"""The parent's end of one child of the process pool.

Invariant: it has one task at a time; what it says of it, it says once: begun, then ended.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from tq.core.errors import ConfigError
from tq.protocol.frames import FrameReader, encode_frame
from tq.worker.assignment import Assignment
from tq.worker.pools.pipe import Kind, Run, decode_ended, decode_text, encode
from tq.worker.pools.pool import Listener
from tq.worker.pools.stderr import ChildStderr

KILL_AFTER_S = 2.0
"""A handler that is interrupted may put things in order; then its process is killed."""


class ParentEnd(asyncio.Protocol):
    """One child, as its parent has it.

    ``work`` is what it was given, ``has_begun`` whether it runs it.  ``ready`` is done once
    it can run tasks, or cannot; ``is_broken``: it has said that it never will.  ``runs``
    counts its tasks, ``memory_bytes`` is what it held after the last; ``oom_kills`` is the
    kernel's count when it was given the last, ``idle_since`` the loop's time when it ended.
    *is_idle* is called when it has nothing to do.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        listener: Listener,
        is_idle: Callable[["ParentEnd"], None],
        stderr: ChildStderr | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.process = process
        self._stderr = stderr
        self.work: Assignment | None = None
        self.has_begun = False
        self.is_broken = False
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # Nobody asks any more for the failure of a child that was starting while the pool ended.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._listener = listener
        self._is_idle = is_idle
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.runs = 0
        self.memory_bytes = 0
        self.oom_kills = 0
        self.idle_since = 0.0

    def run(self, work: Assignment, result_bytes_max: int) -> None:
        """Have it run *work*."""
        if self._stderr is not None:
            self._stderr.forget()
        self.work = work
        self.has_begun = work.has_begun = False
        work.run_by = self
        self.runs += 1
        self.send(Kind.RUN, self.runs, encode(Run(work.task, result_bytes_max)))

    def remind(self) -> None:
        """Have it raise `SoftTimeout` in its task."""
        self.send(Kind.REMIND, self.runs, b"")

    def interrupt(self, work: Assignment) -> None:
        """Have it interrupt *work*, and kill it if it has not heeded in time."""
        self.send(Kind.STOP, self.runs, encode(work.stop))
        self._loop.call_later(KILL_AFTER_S, self._kill_over, work)

    def send(self, kind: Kind, correlation: int, body: bytes) -> None:
        """Write one frame; nothing if it has ended."""
        if self._transport is not None:
            self._transport.write(encode_frame(kind, correlation, body))

    def close(self) -> None:
        """Close the socket, at which it exits."""
        if self._transport is not None:
            self._transport.abort()

    def last_words(self) -> str:
        """Return the last lines that it wrote to its standard error since it was given its task."""
        return "" if self._stderr is None else self._stderr.last_words()

    def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hear what it says."""
        for frame in self._reader.feed(data):
            match Kind(frame.kind):
                case Kind.STARTED:
                    self._begun()
                case Kind.OUTCOME:
                    self._ended(frame.body)
                case Kind.READY:
                    self.ready.set_result(None)
                    self._is_idle(self)
                case Kind.BROKEN:
                    text = f"a child process cannot start the app:\n\n{decode_text(frame.body).rstrip()}"
                    self.is_broken = True
                    self.ready.set_exception(ConfigError(text))
                case Kind.SETUP | Kind.RUN | Kind.REMIND | Kind.STOP:
                    raise AssertionError("a child sends no such frame")

    def connection_lost(self, error: Exception | None) -> None:
        """Note that it says nothing more."""
        self._transport = None
        self.closed.set_result(None)
        if not self.ready.done():
            text = f"child process {self.process.pid} ended before it was ready; its standard error may say why"
            self.ready.set_exception(ConfigError(text))

    def _begun(self) -> None:
        self.has_begun = True
        # None: it was abandoned while it was on its way.
        if self.work is not None:
            self.work.has_begun = True
            self._listener.begun(self.work)

    def _ended(self, body: bytes) -> None:
        work, self.work = self.work, None
        ended = decode_ended(body)
        self.memory_bytes = ended.memory_bytes
        # None: it was abandoned, yet has come to an end.
        if work is not None:
            self._listener.finished(work, ended.outcome)
        self._is_idle(self)

    def _kill_over(self, work: Assignment) -> None:
        if self.work is work:
            self.kill()
