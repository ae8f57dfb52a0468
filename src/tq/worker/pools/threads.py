"""Handlers in threads: for ``def`` handlers, which would stop an event loop.

A thread cannot be ended from outside, but an exception can be raised in it, between two
steps of the interpreter: a soft timeout is, and waits for the end of a call in C (a sleep,
a read, a query) until then.  A coroutine that a thread drives is cancelled, as it would be
on the worker's own loop.  A thread whose task is abandoned is stuck: it keeps its seat
until its handler returns, so that there are never more threads than seats.

Invariant: the pool's own state belongs to the event loop; a thread touches only the
inbox, the outbox, and the assignment it runs.
"""

import asyncio
import contextvars
import ctypes
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from tq.app.context import SoftTimeout
from tq.worker.assignment import Assignment, Outcome, Stage
from tq.worker.executor import Executor, reminded
from tq.worker.pools.driver import Driver
from tq.worker.pools.pool import Listener
from tq.worker.pools.seats import Seats

# A coroutine that is cancelled may have something to put in order first.
_CANCEL_S = 5.0
# One that is about to begin is cancelled once it has.
_AGAIN_S = 0.05
# Threads are idle when the pool stops: this is for a machine that is very busy.
_JOIN_S = 1.0


class ThreadPool:
    """Threads, as many as there are *seats*, started when they are first needed."""

    def __init__(self, executor: Executor, seats: Seats) -> None:
        self._seats = seats
        self._executor = executor
        self._threads: set[_Thread] = set()
        self._busy = 0
        self._inbox: SimpleQueue[Assignment | None] = SimpleQueue()
        self._outbox: deque[tuple[Assignment, Outcome]] = deque()
        self._is_woken = False

    @property
    def seats(self) -> int:
        """How many threads there may be, less those that are stuck."""
        return self._seats.left

    @property
    def stuck(self) -> list[str]:
        """The names of the abandoned tasks whose handlers still run."""
        return self._seats.stuck

    async def start(self, listener: Listener) -> None:
        """Make ready to run; *listener* is told of each end, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._context = contextvars.copy_context()

    def run(self, work: Assignment) -> None:
        """Give *work* to a thread."""
        self._busy += 1
        if self._busy > len(self._threads):
            thread = _Thread(self._serve)
            self._threads.add(thread)
            thread.start()
        self._inbox.put(work)

    def remind(self, work: Assignment) -> bool:
        """Raise `SoftTimeout` in the thread that runs *work*."""
        thread = work.run_by
        return isinstance(thread, _Thread) and thread.remind(work)

    def interrupt(self, work: Assignment) -> float:
        """Cancel the coroutine of *work*; return 0 for a plain handler: a thread cannot be ended."""
        # It may have ended already, unheard so far: the loop can have been busy for longer than its timeout.
        self._collect()
        if not work.plan.is_known or not work.plan.is_async or not isinstance(work.run_by, _Thread):
            return 0.0
        self._cancel(work, work.run_by)
        return _CANCEL_S

    def _cancel(self, work: Assignment, thread: "_Thread") -> None:
        # Abandoned meanwhile: it has had its time.
        if work.stage is Stage.RUNNING and not thread.cancel(work):
            self._loop.call_later(_AGAIN_S, self._cancel, work, thread)

    def abandon(self, work: Assignment) -> None:
        """Leave *work* to its thread, which has no seat for others until its handler returns."""
        self._seats.keep(work, "its thread cannot be ended")
        self._listener.seats_changed()

    async def stop(self) -> None:
        """End the idle threads; those that are stuck are daemons and end with the process."""
        for _ in self._threads:
            self._inbox.put(None)
        for thread in self._threads.difference(self._seats.kept_by):
            thread.join(_JOIN_S)
        self._threads.clear()

    def _serve(self, thread: "_Thread") -> None:
        driver = thread.driver
        while (work := self._inbox.get()) is not None:
            work.run_by = thread
            outcome: Outcome = None
            if work.stage is Stage.RUNNING:
                outcome = thread.call(work, self._run_in_context)
            if not self._post(work, outcome):
                break
        driver.close()

    def _run_in_context(self, work: Assignment, thread: "_Thread") -> Outcome:
        return self._context.copy().run(self._executor.run_blocking, work, thread.driver, thread.spare)

    def _post(self, work: Assignment, outcome: Outcome) -> bool:
        """Bring an outcome to the loop, many with one wake-up; return False if the loop has ended."""
        self._outbox.append((work, outcome))
        if not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                return False
        return True

    def _collect(self) -> None:
        # Before the outbox is emptied: what is put in from here on causes another wake-up.
        self._is_woken = False
        while self._outbox:
            work, outcome = self._outbox.popleft()
            self._busy -= 1
            if self._seats.give_back(work):
                self._listener.seats_changed()
            else:
                self._listener.finished(work, outcome)


class _Thread(threading.Thread):
    """One thread of the pool; a daemon, so that a handler that hangs does not keep the process."""

    def __init__(self, serve: Callable[["_Thread"], None]) -> None:
        super().__init__(name="tq-handler", daemon=True)
        self.driver = Driver()
        self._serve = serve
        self._lock = threading.Lock()
        self._work: Assignment | None = None

    def run(self) -> None:
        self._serve(self)

    def call(self, work: Assignment, run: Callable[[Assignment, "_Thread"], Outcome]) -> Outcome:
        """Run *work* by *run*, and let no exception that was meant for it reach what comes after it."""
        try:
            with self._lock:
                self._work = work
            outcome = run(work, self)
            self.spare()
        except SoftTimeout:
            # It came before the handler was called, or when it had already raised.
            outcome = reminded(work)
            self.spare()
        return outcome

    def spare(self) -> None:
        """Remind no more: what the thread does from here on is not its task's handler."""
        with self._lock:
            self._work = None
        # Raised for this thread, and not yet in it.
        _raise_in(self.ident, None)

    def remind(self, work: Assignment) -> bool:
        """Raise `SoftTimeout` in the handler of *work*, if this thread runs it."""
        with self._lock:
            if self._work is not work:
                return False
            work.soft_is_due = True
            if work.plan.is_async:
                return self.driver.cancel()
            _raise_in(self.ident, SoftTimeout)
            return True

    def cancel(self, work: Assignment) -> bool:
        """Cancel the coroutine of *work*; return False if it has not begun, and is to be cancelled later."""
        with self._lock:
            return self._work is not work or self.driver.cancel()


def _raise_in(thread: int | None, kind: type[BaseException] | None) -> None:
    """Raise an exception in another *thread*, or take it back if it has not been raised yet.

    Source: PyThreadState_SetAsyncExc, Python/C API, "Initialization, Finalization, and Threads".
    """
    reference = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread or 0), reference)
