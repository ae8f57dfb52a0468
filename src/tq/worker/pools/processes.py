"""Handlers in processes of their own: for CPU work, and for a time limit that nothing escapes.

Each child (`tq.worker.pools.child`) imports the app and runs one task at a time.  Between
the two go bytes: a task's record one way, its outcome the other.  A child that dies takes
the one task with it that it ran: that attempt has failed, and another child takes its
place, with its last words, if it had any.  What it was given and had not begun goes back, unharmed.

Invariant: a child never outlives its parent: it ends when its socket does.
"""

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tq
from tq.core.errors import ConfigError
from tq.worker import restarts
from tq.worker.assignment import Assignment
from tq.worker.executor import Executor, process_died, stopped
from tq.worker.pools.oom import OomKills
from tq.worker.pools.parent import KILL_AFTER_S, ParentEnd
from tq.worker.pools.pipe import Kind, Setup, encode
from tq.worker.pools.pool import Listener
from tq.worker.pools.stderr import ChildStderr

_log = logging.getLogger(__name__)

# The kernel reaps a killed process at once, unless it hangs in the kernel itself.
_ABANDON_AFTER_S = KILL_AFTER_S + 3.0
# Children exit by themselves when their socket closes.
_EXIT_S = 2.0
IDLE_S = 30.0
"""How long a child that is not needed is kept: a start costs an import of the app."""
_MIB = 1 << 20
# The kernel's count of kills is read before a task, but not more often than this: it is a file, and tasks are many.
_OOM_KILLS_AGE_S = 1.0
# A first child that is killed may have met the machine's bad moment; so many in a row mean that none ever starts.
_KILLED_MAX = 3

# Not `-m`: where this package lies may be known to this process only (its sys.path).
# Ctrl-C reaches the whole terminal: a child, which leaves it to its parent, hears of it while it is still imported too.
_BOOTSTRAP = (
    "import signal, sys; signal.signal(signal.SIGINT, lambda *_: None); sys.path.insert(0, sys.argv[1]); "
    "from tq.worker.pools.child import main; main()"
)
_ROOT = str(Path(tq.__file__).parent.parent)


class Upbringing(NamedTuple):
    """What each child is told, and how long it is kept.

    It imports ``app`` (``module:name``) and logs as ``logs`` says (see `pipe.Setup`).  One
    that has run ``tasks_max`` tasks, or holds more than ``memory_bytes_max`` after one, is
    retired: it ends between two tasks, and another takes its place.  Without ``children_min``
    there are always as many as tasks run at a time; with it so many at first, one more when
    all are busy, and one fewer when one has been idle for `IDLE_S`.
    """

    app: str
    logs: Sequence[str] = ()
    tasks_max: int | None = None
    memory_bytes_max: int | None = None
    children_min: int | None = None


class ProcessPool:
    """Up to *concurrency* children, which run the tasks of *worker*.

    *oom_kills* returns the kernel's count of processes that it killed for want of memory.
    """

    def __init__(
        self,
        executor: Executor,
        concurrency: int,
        worker: str,
        upbringing: Upbringing,
        oom_kills: Callable[[], int] | None = None,
    ) -> None:
        self._executor = executor
        self._concurrency = concurrency
        self._worker = worker
        self._upbringing = upbringing
        self._children: set[ParentEnd] = set()
        self._retired: set[ParentEnd] = set()
        self._idle: list[ParentEnd] = []
        self._children_min = upbringing.children_min or concurrency
        self._seats: set[asyncio.Task[None]] = set()
        self._surplus = 0
        self._shrinking: asyncio.TimerHandle | None = None
        self._stderrs: set[ChildStderr] = set()
        self._oom_kills = oom_kills or OomKills().count
        self._oom_kills_seen, self._oom_kills_seen_at = self._oom_kills(), -math.inf
        self._has_been_ready = False
        self._stopping = asyncio.Event()

    @property
    def seats(self) -> int:
        """How many children are there to run tasks; one that is being replaced is not."""
        return len(self._idle) + sum(child.work is not None for child in self._children)

    @property
    def stuck(self) -> list[str]:
        """Nothing: a process can be killed."""
        return []

    async def start(self, listener: Listener) -> None:
        """Start the children, and wait until they are ready; *listener* is told of each end.

        Raises:
            ConfigError: A child cannot be started or cannot import the app, or dies
                before one was ready: at once if of itself, the third time if by a signal.
        """
        self._listener = listener
        firsts: list[asyncio.Future[None]] = [
            asyncio.get_running_loop().create_future() for _ in range(self._children_min)
        ]
        for first in firsts:
            self._add_seat(first)
        try:
            await asyncio.gather(*firsts)
        except BaseException:  # a cancellation, too, leaves no child behind
            await self.stop()
            raise

    def run(self, work: Assignment) -> None:
        """Give *work* to an idle child."""
        now = asyncio.get_running_loop().time()
        if now - self._oom_kills_seen_at >= _OOM_KILLS_AGE_S:
            self._oom_kills_seen, self._oom_kills_seen_at = self._oom_kills(), now
        child = self._idle.pop()
        child.oom_kills = self._oom_kills_seen
        child.run(work, self._executor.result_bytes_max)
        self._grow()

    def remind(self, work: Assignment) -> bool:
        """Raise `SoftTimeout` in the main thread of the child, by a signal, so that it wakes one that sleeps."""
        child = work.run_by
        if not isinstance(child, ParentEnd) or not child.has_begun:
            return False
        child.remind()
        return True

    def interrupt(self, work: Assignment) -> float:
        """Interrupt the handler, and kill its process two seconds later."""
        child = work.run_by
        assert isinstance(child, ParentEnd), "what runs is with a child"
        child.interrupt(work)
        return _ABANDON_AFTER_S

    def abandon(self, work: Assignment) -> None:
        """Leave a process that cannot even be killed to the kernel; its seat is lost until it ends."""
        if isinstance(work.run_by, ParentEnd):
            work.run_by.work = None
            self._listener.seats_changed()

    async def stop(self) -> None:
        """Close the children's sockets, at which they exit; kill those that do not."""
        self._stopping.set()
        if self._shrinking is not None:
            self._shrinking.cancel()
        for child in self._children:
            child.close()
        exits = [asyncio.create_task(child.process.wait()) for child in self._children]
        if exits:
            await asyncio.wait(exits, timeout=_EXIT_S)
        for child in self._children:
            child.kill()
        # What a seat failed of is told where it is noticed.
        await asyncio.gather(*exits, *self._seats, return_exceptions=True)
        for stderr in self._stderrs:
            stderr.close()
        self._stderrs.clear()

    def _add_seat(self, first: "asyncio.Future[None]") -> None:
        seat = asyncio.create_task(self._keep_seat(first))
        self._seats.add(seat)
        seat.add_done_callback(lambda seat: self._seat_ended(seat, first))

    def _seat_ended(self, seat: asyncio.Task[None], first: "asyncio.Future[None]") -> None:
        """Tell whoever waits for a seat that none comes, and have another in place of one that failed."""
        self._seats.discard(seat)
        error = None if seat.cancelled() else seat.exception()
        if error is None:
            return
        if not first.done():
            first.set_exception(error)
            return
        _log.error("a seat for a child process failed; another takes its place", exc_info=error)
        self._listener.seats_changed()
        if not self._stopping.is_set():
            asyncio.get_running_loop().call_later(restarts.FIRST_S, self._add_late_seat)

    def _add_late_seat(self) -> None:
        if not self._stopping.is_set():
            # Nobody waits for it: one that cannot start is tried again like any other that has to be replaced.
            late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            late.set_result(None)
            self._add_seat(late)

    def _grow(self) -> None:
        """Start one child more if all are busy and none is being started: whether that helps is seen then."""
        if not self._idle and len(self._seats) == self.seats < self._concurrency:
            self._add_late_seat()

    def _shrink(self) -> None:
        """Let a child go that has been idle for long; the last to be idle is the first to be used again."""
        self._shrinking = None
        now = asyncio.get_running_loop().time()
        if self._idle and len(self._seats) - self._surplus > self._children_min:
            if self._idle[0].idle_since + IDLE_S <= now:
                child = self._idle.pop(0)
                _log.info("child process %d has been idle for %g s; it is let go", child.process.pid, IDLE_S)
                self._surplus += 1
                self._retire(child)
                self._listener.seats_changed()
            self._shrink_later()

    def _shrink_later(self) -> None:
        if self._shrinking is None and self._children_min < self._concurrency and not self._stopping.is_set():
            self._shrinking = asyncio.get_running_loop().call_later(IDLE_S, self._shrink)

    def _retire(self, child: ParentEnd) -> None:
        self._retired.add(child)
        child.close()
        # A thread that a handler has left may keep it.
        asyncio.get_running_loop().call_later(_EXIT_S, child.kill)

    def _is_idle(self, child: ParentEnd) -> None:
        if why := self._outlived(child):
            _log.info("child process %d %s; another takes its place", child.process.pid, why)
            self._retire(child)
        else:
            child.idle_since = asyncio.get_running_loop().time()
            self._idle.append(child)
            self._shrink_later()
        self._listener.seats_changed()

    def _outlived(self, child: ParentEnd) -> str:
        """Return why *child* is to be retired; nothing if it may go on."""
        tasks_max, memory_bytes_max = self._upbringing.tasks_max, self._upbringing.memory_bytes_max
        if tasks_max is not None and child.runs >= tasks_max:
            return f"has run {child.runs} task{'' if child.runs == 1 else 's'}"
        if memory_bytes_max is not None and child.memory_bytes > memory_bytes_max:
            after = "1 task" if child.runs == 1 else f"{child.runs} tasks"
            return f"holds {child.memory_bytes / _MIB:.1f} MiB after {after}, over {memory_bytes_max / _MIB:g} MiB"
        return ""

    async def _keep_seat(self, first: "asyncio.Future[None]") -> None:
        """Have a child in one seat for as long as the pool runs; *first* is done once there was one, or cannot be."""
        failures = 0
        while not self._stopping.is_set():
            failure = await self._have_child(first)
            if failure is None:
                if self._surplus:
                    self._surplus -= 1
                    return
                failures = 0
                continue
            failures += 1
            if not first.done() and failures >= failure.first_max:
                first.set_exception(ConfigError(failure.text))
                return
            if not self._stopping.is_set():
                wait_s = restarts.wait_after(failures)
                _log.error("%s; another is started in %g s", failure.text, wait_s)
                await self._pause(wait_s)

    async def _have_child(self, first: "asyncio.Future[None]") -> "_Failure | None":
        """Have one child, from its start to its end; return why if it never was ready."""
        try:
            child = await self._spawn()
        except ConfigError as error:
            return _Failure(str(error), 1)
        try:
            await child.ready
        except ConfigError as error:
            status = await self._end_of(child)
            if child.is_broken:
                return _Failure(str(error), 1)
            who = f"child process {child.process.pid}"
            text = f"{who} ended ({_how_it_ended(status)}) before it was ready; its standard error may say why"
            if self._has_been_ready:
                return _Failure(text, math.inf)
            return _Failure(text, _KILLED_MAX if status < 0 else 1)
        self._has_been_ready = True
        if not first.done():
            first.set_result(None)
        await self._bury(child)
        return None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _end_of(self, child: ParentEnd) -> int:
        """Wait for the end of *child* and let go of it; return its status."""
        status = await child.process.wait()
        # What it sent last is still to be read; what it started itself may keep the socket open.
        await asyncio.wait([child.closed], timeout=_EXIT_S)
        child.close()
        self._children.discard(child)
        return status

    async def _bury(self, child: ParentEnd) -> None:
        """Wait for the end of *child*, and tell of the task that it had."""
        status = await self._end_of(child)
        if child in self._idle:
            self._idle.remove(child)
        how = _how_it_ended(status)
        if status == -signal.SIGKILL and self._oom_kills() > child.oom_kills:
            how = f"{how}, killed by the kernel, out of memory"
        work, child.work = child.work, None
        if work is not None and not child.has_begun and work.stop is None:
            # It was killed while it was idle, as this task came: the task has nothing to do with it.
            self._listener.returned(work)
        elif work is not None:
            text = f"process {child.process.pid}, which ran the task, ended: {how}"
            failed = process_died(text, child.last_words()) if work.stop is None else stopped(work)
            self._listener.finished(work, failed)
        self._listener.seats_changed()
        if child in self._retired:
            self._retired.remove(child)
        elif not self._stopping.is_set():
            _log.warning("child process %d ended (%s); another takes its place", child.process.pid, how)

    async def _spawn(self) -> ParentEnd:
        """Start a child and tell it what it is for.

        Raises:
            ConfigError: The machine does not let it start: for want of descriptors, for one. Nothing is left of it.
        """
        try:
            ours, theirs = socket.socketpair()
            try:
                with theirs:
                    child = await self._start_process(theirs)
                try:
                    await asyncio.get_running_loop().create_unix_connection(lambda: child, sock=ours)
                except BaseException:
                    await self._undo(child)
                    raise
            except BaseException:
                ours.close()
                raise
        except OSError as error:
            raise ConfigError(f"a child process cannot be started: {error}") from error
        if self._stopping.is_set():
            child.close()
        child.send(Kind.SETUP, 0, encode(self._setup()))
        return child

    async def _start_process(self, stdin: socket.socket) -> ParentEnd:
        stderr = ChildStderr()
        # What a child has started may write on when it has ended itself: so each is read to its end, or the pool's.
        self._stderrs = {each for each in self._stderrs if each.is_open} | {stderr}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _BOOTSTRAP,
                _ROOT,
                self._upbringing.app,
                stdin=stdin.fileno(),
                stderr=stderr.write_end,
            )
        finally:
            os.close(stderr.write_end)
        child = ParentEnd(process, self._listener, self._is_idle, stderr)
        self._children.add(child)
        return child

    async def _undo(self, child: ParentEnd) -> None:
        """End a child that cannot be spoken to."""
        child.kill()
        self._children.discard(child)
        await child.process.wait()

    def _setup(self) -> Setup:
        app, logs, _, memory_bytes_max, _ = self._upbringing
        level = logging.getLogger().getEffectiveLevel()
        return Setup(app, self._worker, sys.path, level, list(logs), memory_bytes_max is not None)


class _Failure(NamedTuple):
    """Why a child never was ready, and after how many in a row a first one is given up."""

    text: str
    first_max: float


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
