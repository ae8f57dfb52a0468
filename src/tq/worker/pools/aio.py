"""Handlers on the event loop: one `asyncio.Task` for each ``async def``, a thread for each ``def``.

A coroutine that is deaf to its cancellation keeps its seat until it ends, as a thread does: there are never
more of both than seats.

Invariant: handlers that run side by side share nothing: each has its own asyncio task,
and with it its own context variables.
"""

import asyncio
import functools

from tq.worker.assignment import Assignment
from tq.worker.executor import Executor, stopped
from tq.worker.pools.pool import Listener
from tq.worker.pools.seats import Seats
from tq.worker.pools.threads import ThreadPool

# A handler that is cancelled may have something to put in order first.
_CANCEL_S = 5.0


class AsyncPool:
    """The pool for programs whose handlers are mostly ``async def``."""

    def __init__(self, executor: Executor, concurrency: int) -> None:
        self._executor = executor
        self._seats = Seats(concurrency)
        self._threads = ThreadPool(executor, self._seats)

    @property
    def seats(self) -> int:
        """How many coroutines and threads can run at once, less those that are stuck."""
        return self._seats.left

    @property
    def stuck(self) -> list[str]:
        """The names of the abandoned tasks whose handlers still run: in threads, or deaf to their cancellation."""
        return self._seats.stuck

    async def start(self, listener: Listener) -> None:
        """Make ready to run in the running loop; *listener* is told of each end."""
        self._loop = asyncio.get_running_loop()
        self._finished = listener.finished
        self._seats_changed = listener.seats_changed
        await self._threads.start(listener)

    def run(self, work: Assignment) -> None:
        """Start *work*: its handler takes its first step when the loop comes to it."""
        if work.plan.is_async:
            coroutine = self._executor.run(work, self._finished)
            # Not loop.create_task: what it adds costs as much as the task itself.
            work.run_by = asyncio.Task(coroutine, loop=self._loop, name=work.plan.name)
        else:
            self._threads.run(work)

    def remind(self, work: Assignment) -> bool:
        """Raise `SoftTimeout` where a coroutine awaits, or in a thread."""
        if not isinstance(work.run_by, asyncio.Task):
            return self._threads.remind(work)
        work.soft_is_due = True
        # Later: one cancelled before its first step would never hear of it.
        self._loop.call_soon(work.run_by.cancel)
        return True

    def interrupt(self, work: Assignment) -> float:
        """Cancel a coroutine; a thread cannot be ended."""
        if not isinstance(work.run_by, asyncio.Task):
            return self._threads.interrupt(work)
        # The executor tells of every end but one: that of a coroutine that has not taken its first step.
        work.run_by.add_done_callback(functools.partial(self._never_ran, work))
        work.run_by.cancel()
        return _CANCEL_S

    def abandon(self, work: Assignment) -> None:
        """Leave a coroutine that does not heed its cancellation, or a thread, to itself; it keeps its seat."""
        if isinstance(work.run_by, asyncio.Task):
            # This refers to the task, too: someone must, or the garbage collector may take it.
            self._seats.keep(work, "its coroutine does not heed its cancellation")
            work.run_by.add_done_callback(functools.partial(self._has_ended, work))
            self._seats_changed()
        else:
            self._threads.abandon(work)

    def _has_ended(self, work: Assignment, _task: asyncio.Task[None]) -> None:
        self._seats.give_back(work)
        self._seats_changed()

    def _never_ran(self, work: Assignment, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._finished(work, stopped(work))

    async def stop(self) -> None:
        """End the threads; coroutines have ended or are abandoned by now."""
        await self._threads.stop()
