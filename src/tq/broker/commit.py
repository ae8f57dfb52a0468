"""Group commit: one batch in flight, and the next one built from what arrives meanwhile.

Nothing here waits: the end of a commit is a callback, and a store that has nothing to
wait for costs no turn of the loop.

Invariant: batches are let out in the order in which they were built, each after its
commit; a batch whose commit failed never is, and none is after it.
"""

import asyncio
from collections.abc import Callable

from tq.broker.batch import Batch
from tq.core.errors import StoreError
from tq.engine.engine import Engine
from tq.store.base import DONE, Commit, Store


class GroupCommit:
    """``batch`` is the one being built; ``in_flight``: another is being made durable.

    ``is_closed``: nothing more is committed.  ``has_more``: the engine could hand out more than the last batch held.

    *monotonic* gives seconds; *let_out* says what a durable batch has
    to say; *go_on* is called after that, when another batch may be committed; *fail* gets
    the error, a `StoreError` or a bug, after which nothing more is committed.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        monotonic: Callable[[], float],
        *,
        let_out: Callable[[Batch], None],
        go_on: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self.batch = Batch(engine.changes())
        self.has_more = False
        self.commits = 0
        self.seconds = 0.0
        self._engine = engine
        self._store = store
        self._monotonic = monotonic
        self._let_out = let_out
        self._go_on = go_on
        self._fail = fail
        self.in_flight = False
        self.is_closed = False

    def close(self) -> None:
        """Commit nothing more, and say nothing of what is in flight."""
        self.is_closed = True

    def advance(self, now: int, *, hand_out: bool) -> None:
        """Complete the batch being built, with what can be handed out, and commit it, unless one is in flight."""
        if self.in_flight or self.is_closed:
            return
        batch = self.batch
        changes = batch.changes
        self.has_more = hand_out and self._engine.dispatch(changes)
        if batch.empty:
            self.has_more = False
            return
        self._engine.seal(now, changes)
        self.batch = Batch(self._engine.changes())
        if not (changes.writes or batch.is_barrier):
            self._let_out(batch)
            return
        began = self._monotonic()
        committing = self._store.commit(changes.writes, sync=changes.promised or batch.is_barrier)
        if committing is DONE:
            self._committed(batch, began)
            return
        self.in_flight = True
        asyncio.ensure_future(committing).add_done_callback(lambda done: self._ended(batch, began, done))

    def _ended(self, batch: Batch, began: float, done: asyncio.Future[Commit]) -> None:
        self.in_flight = False
        if self.is_closed:
            return
        try:
            if done.result() is not Commit.COMMITTED:
                raise StoreError("the store belongs to another broker now")
            self._committed(batch, began)
            self._go_on()
        except Exception as error:  # noqa: BLE001 - a bug: fail-stop, as a failed commit
            self._fail(error)

    def _committed(self, batch: Batch, began: float) -> None:
        self.commits += 1
        self.seconds += self._monotonic() - began
        self._let_out(batch)
        for start, end in batch.changes.emptied:
            self._store.reclaim(start, end)
