"""The thread that waits for the disk, so that the loop does not.

Invariants: a syncer owns exactly one thread, which ends with `close`; requests are
answered in the order in which they were made, each after an fsync that began later.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread

from tq.core.errors import StoreError
from tq.core.times import DurationMs
from tq.store.base import Commit

_Request = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Commit]"]


class DemandSyncer:
    """Calls *sync* once for each request and tells the loop that asked; then *afterwards*, unless it failed.

    A thread of our own rather than an executor: measured at one commit after another it
    saves 28 us of the loop's time and 50 us of the 256 us that a commit takes.
    """

    def __init__(self, sync: Callable[[], None], afterwards: Callable[[], None]) -> None:
        self._sync = sync
        self._afterwards = afterwards
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="tq-store-sync", daemon=True)
        self._thread.start()

    def request(self) -> "asyncio.Future[Commit]":
        """Ask for an fsync; the future ends when it is done, or with the error that *sync* raised."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Commit] = loop.create_future()
        self._requests.put((loop, done))
        return done

    def close(self) -> None:
        """Answer what was asked so far and end the thread."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            failure: StoreError | None = None
            try:
                self._sync()
            except StoreError as error:
                failure = error
            loop, done = request
            try:
                loop.call_soon_threadsafe(_answer, done, failure)
            except RuntimeError:
                # The loop is closed: nobody is left who waits for the answer.
                pass
            if failure is None:
                self._afterwards()


def _answer(done: "asyncio.Future[Commit]", failure: StoreError | None) -> None:
    if done.done():  # Whoever waited was cancelled.
        return
    if failure is None:
        done.set_result(Commit.COMMITTED)
    else:
        done.set_exception(failure)


class IntervalSyncer:
    """Calls *sync*, and then *afterwards*, at most once an interval, and only after something was written.

    *sync* keeps note of its own failure: there is nobody to raise it to. The thread ends with it.
    """

    def __init__(self, sync: Callable[[], None], afterwards: Callable[[], None], interval_ms: DurationMs) -> None:
        self._sync = sync
        self._afterwards = afterwards
        self._interval_s = interval_ms / 1_000
        self._written = Event()
        self._closing = Event()
        self._thread = Thread(target=self._run, name="tq-store-sync", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Say that something was written: it is on disk an interval and one fsync from now."""
        # Event.set takes a lock each time; is_set is an attribute.
        if not self._written.is_set():
            self._written.set()

    def close(self) -> None:
        """End the thread. What was written since its last fsync is the caller's to sync."""
        self._closing.set()
        self._written.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._written.wait()
            if self._closing.wait(self._interval_s):
                return
            # Cleared before the fsync: what is written during it may have missed it.
            self._written.clear()
            # That may have cleared the wake of a `close` that came just now; it sets this one first.
            if self._closing.is_set():
                return
            try:
                self._sync()
            except StoreError:
                return
            self._afterwards()
