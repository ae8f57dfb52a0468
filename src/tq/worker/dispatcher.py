"""From delivery to settlement, once a turn of the loop: the heart of the worker.

    delivered -> waits -> started in a free slot -> ended -> settled
                   |
                   +-> handed back: stuck behind long tasks, or the worker leaves

Everything is done in batches: what a turn of the loop has ended is settled in one
message, what became free is filled, and what still runs gets its started mark: a task
that is over within the turn never needs one.  Until the handler of a kind has first come to
an end of its own here, its kind is marked before it runs: a handler that kills the process in its
first step would otherwise be taken for one that never started, for ever.

Invariant: no more tasks run than the pool has seats; the dispatcher and its holdings belong to the
event loop.
"""

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable

from tq.core.errors import BrokerError, SessionUnknown
from tq.core.ids import format_id
from tq.core.lease import DeliveryRef
from tq.core.outcome import Retry
from tq.protocol.messages import Deliver, Held, Release, Revoke, Settled, Started, Welcome, Window
from tq.worker.assignment import Assignment, Failed, Outcome, Stage, Stop
from tq.worker.executor import Executor, stopped
from tq.worker.holdings import Batch, Holdings
from tq.worker.link import Link
from tq.worker.pools.pool import Pool
from tq.worker.prefetch import HELD_UP_S, PREFETCH_BYTES, Prefetch

_log = logging.getLogger(__name__)

# Outcomes of a turn go out at once while the broker answers; behind this many messages they
# wait for each other, so that the batches grow with the time a commit takes.
_BATCHES_MAX = 4

UNSETTLED_BYTES_MAX = 64 * 1024 * 1024
"""No task is started while so much waits to be settled: the broker is away, or slower than the worker."""

_REFUSED_WAIT_S = 1.0


class Dispatcher:
    """Moves tasks between the link and the pool; the `Listener` of both."""

    def __init__(
        self,
        pool: Pool,
        executor: Executor,
        concurrency: int,
        prefetch: int | None,
        clock: Callable[[], float],
    ) -> None:
        self.holdings = Holdings()
        self.deliveries = 0
        """How many deliveries have come: a burst ends when none does."""
        self._pool = pool
        self._executor = executor
        self._concurrency = concurrency
        self._is_adaptive = prefetch is None
        self._prefetch = Prefetch(concurrency, prefetch)
        self._clock = clock
        self._is_leaving = False
        self._settle_again_at = 0.0
        self._ticked_at = clock()
        self._stands_still_s = math.inf
        self._ended = 0
        self._ended_started_sum = 0.0
        self._fresh: list[Assignment] = []
        self._older: list[Assignment] = []
        self._turn_is_due = False
        self._waits_for_mark = False
        self._watcher: asyncio.Future[None] | None = None

    async def start(self, link: Link) -> None:
        """Make ready: *link* will bring tasks."""
        self._link = link
        self._loop = asyncio.get_running_loop()
        # Turns are often caused by a handler: what it sets must not reach the tasks they start.
        self._context = contextvars.copy_context()
        await self._pool.start(self)

    # --------------------------------------------------------------------------------------- from the link

    def held(self) -> list[Held]:
        """Return what is held; all that have begun are marked as started by saying it."""
        for work in self.holdings.running:
            work.marked = work.has_begun
        return self.holdings.held()

    def opened(self, welcome: Welcome) -> None:
        """Stop what is lost, say how much to deliver, settle what has ended meanwhile."""
        self._executor.result_bytes_max = welcome.limits.payload_bytes_max
        # A broker takes away what waits here when the loop has stood still for the time of a lease.
        self._stands_still_s = welcome.limits.lease_ms / 2_000
        self._lose(welcome.lost)
        self._settle_again_at = 0.0
        self._prefetch.told = None
        self._tell_window()
        self._turn_soon()

    def session_lost(self) -> None:
        """Drop what waits and stop what runs; outcomes are sent once more, for the broker to judge."""
        for work in self.holdings.lose_session():
            self._stop(work, Stop.LOST)
        self._turn_soon()

    def delivered(self, deliver: Deliver) -> None:
        """Take tasks in; those that find a free slot start in the next turn."""
        self.deliveries += 1
        taken = self.holdings.accept(
            deliver.token, [self._executor.read(record) for record in deliver.records], self._clock()
        )
        if self._is_leaving:
            self._hand_back(self._clock())
            return
        unknown = [work for work in taken if not work.plan.is_known]
        if unknown:
            names = sorted({work.plan.name for work in unknown})
            _log.error("delivered tasks that this worker does not know: %s; handed back", ", ".join(names))
            self._release([self.holdings.refuse(work) for work in unknown])
        if deliver.alone and not self._prefetch.seats:
            # It crossed with the news that there is none.
            self._release([self.holdings.refuse(work) for work in taken if work.stage is Stage.WAITING])
        elif deliver.alone:
            # A suspect of killing its worker is marked before it can do so, whatever others of its kind did.
            # A loop may keep what is written until the end of its turn, so it starts in a later one.
            self._mark([work for work in taken if work.plan.is_known])
            self._waits_for_mark = True
            self._loop.call_soon(self._loop.call_soon, self._mark_is_out)
        self._turn_soon()

    def revoked(self, revoke: Revoke) -> None:
        """Stop tasks whose leases are lost."""
        self._lose(revoke.tasks)
        self._turn_soon()

    def settled(self, correlation: int, settled: Settled) -> None:
        """Forget outcomes that are durable, or came too late."""
        self.holdings.settled(correlation)
        self._too_late(len(settled.lost))
        self._turn_soon()

    def refused(self, correlation: int, error: BrokerError) -> None:
        """Send outcomes again later, or give them up if the broker will never take them."""
        if error.retryable or isinstance(error, SessionUnknown):
            wait = _REFUSED_WAIT_S if error.retry_after_ms is None else error.retry_after_ms / 1_000
            self._settle_again_at = self._clock() + wait
            self.holdings.unsettle(correlation)
            return
        batch = self.holdings.settled(correlation)
        _log.error("the broker refuses %d outcomes: %s", len(batch.done) + len(batch.failed), error)

    def closed(self) -> None:
        """Keep what was under way to the broker, to be sent again."""
        self.holdings.unsettle_all()
        self._wake_watcher()

    # --------------------------------------------------------------------------------------- from the pool

    def finished(self, work: Assignment, outcome: Outcome) -> None:
        """Note how *work* ended; it is settled at the end of this turn of the loop."""
        if self.holdings.finish(work, outcome):
            self._ended += 1
            self._ended_started_sum += work.started_at
            if not isinstance(outcome, Failed):
                work.plan.is_proven = True
            else:
                work.plan.is_proven |= outcome.by_handler
                _log_failure(work, outcome)
        if not self._turn_is_due:
            self._turn_soon()

    def begun(self, work: Assignment) -> None:
        """Have *work* marked as started, if it lasts."""
        self._fresh.append(work)
        self._turn_soon()

    def returned(self, work: Assignment) -> None:
        """Hand *work* back, unharmed: a mark that it may have is taken back by that."""
        if work.stage is Stage.GONE:
            self.holdings.running.discard(work)
        else:
            self._release([self.holdings.refuse(work)])
        self._turn_soon()

    def seats_changed(self) -> None:
        """Fill the seats that are new; hold no task as started for one that is gone."""
        seats = min(self._pool.seats, self._concurrency)
        if seats != self._prefetch.seats:
            if seats < self._prefetch.seats:
                self._release(self.holdings.give_up_marked())
            self._prefetch.seats = seats
            self._prefetch.told = None
            self._turn_soon()

    # ------------------------------------------------------------------------------ from the keeper's thread

    def unmarked(self) -> list[DeliveryRef]:
        """Return the tasks that have begun and are not marked as started.  Any thread may call it."""
        # Copied in one step of the interpreter: the loop may go on meanwhile.
        running = list(self.holdings.running)
        return [DeliveryRef(work.token, work.index) for work in running if work.has_begun and not work.marked]

    # -------------------------------------------------------------------------------------- from the clock

    def tick(self) -> None:
        """Stop what has run for its timeout, give up what cannot be stopped, hand back what is stuck."""
        now = self._ticked_at = self._clock()
        for work in list(self.holdings.running):
            if work.stop is None:
                if now >= work.started_at + work.plan.timeout_s:
                    self._stop(work, Stop.TIMEOUT)
                elif not work.soft_is_told and now >= work.started_at + (work.plan.soft_timeout_s or math.inf):
                    work.soft_is_told = self._pool.remind(work)
            elif now >= work.give_up_at:
                self._abandon(work)
        # However many a user wants held: where there are no seats at all, nobody knows for how long.
        hands_back = self._is_adaptive or not self._prefetch.seats
        if hands_back and self._link.is_open and self._is_held_up(now):
            self._prefetch.held_up(HELD_UP_S)
            # Whatever the difference: what is handed back below must not come straight back.
            self._prefetch.told = None
            self._tell_window()
            self._hand_back(now - HELD_UP_S)
        if self.holdings.has_unsent or self.holdings.has_waiting:
            self._turn_soon()

    # ------------------------------------------------------------------------------------- from the worker

    def leave(self) -> None:
        """Take nothing new, and hand back at once what has not been started."""
        self._is_leaving = True
        self._tell_window()
        self._hand_back(self._clock())
        self._turn_soon()

    def stop_running(self) -> None:
        """Stop what still runs: its attempt fails, and is made again by another worker at once."""
        for work in list(self.holdings.running):
            self._stop(work, Stop.LEAVING)

    @property
    def lacks_seats(self) -> bool:
        """Whether nothing can run until a child is ready; seats that are stuck are not waited for."""
        return not (self._prefetch.seats or self._pool.stuck)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is looked at after each turn."""
        while not condition():
            self._watcher = self._loop.create_future()
            await self._watcher

    # ---------------------------------------------------------------------------------------------- a turn

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        self._turn_is_due = False
        if self._ended:
            seconds = self._ended * self._clock() - self._ended_started_sum
            self._prefetch.finished(self._ended, max(seconds, 0.0))
            self._ended, self._ended_started_sum = 0, 0.0
        if self._link.is_open:
            self._mark_what_lasts()
            self._settle()
        if self._clock() - self._ticked_at > self._stands_still_s:
            # Others may run by now what has waited here meanwhile: it is not started, nor looked for in the socket.
            self._hand_back(self._clock())
        self._fill()
        self._tell_window()
        self._wake_watcher()

    def _mark_what_lasts(self) -> None:
        # A turn may come between the start of a task and its first step, so it is looked at in the second.
        lasting = [work for work in self._older if work.stage is Stage.RUNNING and not work.marked]
        self._older, self._fresh = self._fresh, []
        if lasting:
            self._mark(lasting)
        if self._older:
            self._turn_soon()

    def _settle(self) -> None:
        if self._clock() < self._settle_again_at:
            return
        holdings, link = self.holdings, self._link
        while holdings.has_unsent and holdings.batches_sent < _BATCHES_MAX:
            batch = holdings.take_batch(link.limits)
            try:
                holdings.sent(link.request(batch.settle), batch)
            except BrokerError:
                # The bounds on outcomes should not let it come to this: one of them has no encoding.
                self._settle_one_by_one(batch)

    def _settle_one_by_one(self, batch: Batch) -> None:
        """Settle what can be sent of a batch that cannot: no outcome is lost for the sake of another."""
        for single in batch.singles():
            sent = single
            try:
                correlation = self._link.request(single.settle)
            except BrokerError as error:
                _log.error("the outcome of a task cannot be sent, and becomes a failure: %s", error)
                sent = single.unsendable(str(error))
                correlation = self._link.request(sent.settle)
            self.holdings.sent(correlation, sent)

    def _fill(self) -> None:
        holdings = self.holdings
        free = self._prefetch.seats - len(holdings.running)
        if free <= 0 or holdings.unsettled_bytes > UNSETTLED_BYTES_MAX or self._waits_for_mark:
            return
        if self._link.is_open:
            unproven = [work for work in holdings.next(free) if not (work.plan.is_proven or work.marked)]
            if unproven:
                # What is written in this turn is sent before the next, in which they start.
                self._mark(unproven)
                self._turn_soon()
                return
        now = self._clock()
        while free and (work := holdings.start(now)) is not None:
            free -= 1
            self._pool.run(work)
            if work.has_begun:
                self._fresh.append(work)
        if self._fresh and self._link.is_open:
            self._turn_soon()

    def _tell_window(self) -> None:
        if not self._link.is_open:
            return
        tasks = self._prefetch.news(0 if self._is_leaving else None)
        if tasks is not None:
            room = PREFETCH_BYTES + self._concurrency * self._link.limits.payload_bytes_max
            self._link.notify(Window(tasks, room if tasks else 0))

    # ---------------------------------------------------------------------------------- parts of the above

    def _mark(self, started: list[Assignment]) -> None:
        for work in started:
            work.marked = True
        self._link.notify(Started([DeliveryRef(work.token, work.index) for work in started]))

    def _mark_is_out(self) -> None:
        self._waits_for_mark = False
        self._turn_soon()

    def _is_held_up(self, now: float) -> bool:
        """Whether tasks wait while every slot has been busy with one task for long."""
        holdings = self.holdings
        return (
            holdings.has_waiting
            and len(holdings.running) >= self._prefetch.seats
            and max((work.started_at for work in holdings.running), default=-math.inf) <= now - HELD_UP_S
        )

    def _hand_back(self, received_by: float) -> None:
        self._release(self.holdings.hand_back(received_by))

    def _release(self, given_up: list[DeliveryRef]) -> None:
        # On the next connection they are not among the held, and go back by that.
        if given_up and self._link.is_open:
            self._link.notify(Release(given_up))

    def _lose(self, tasks: list[DeliveryRef]) -> None:
        to_stop, outcomes = self.holdings.lose(tasks)
        self._too_late(outcomes)
        for work in to_stop:
            _log.info("task %s %s: its lease is lost; it is stopped", work.plan.name, format_id(work.task.id))
            self._stop(work, Stop.LOST)

    @staticmethod
    def _too_late(outcomes: int) -> None:
        if outcomes:
            _log.info("%d outcomes came too late: their leases had been lost", outcomes)

    def _stop(self, work: Assignment, why: Stop) -> None:
        if work.stop is not None:
            work.stop = why
            return
        work.stop = why
        patience = self._pool.interrupt(work)
        if patience > 0:
            work.give_up_at = self._clock() + patience
        else:
            self._abandon(work)

    def _abandon(self, work: Assignment) -> None:
        if work not in self.holdings.running:
            return  # it ended of itself while it was being stopped
        _log.error(
            "task %s %s cannot be stopped (%s): its attempt is over, its handler is left to itself",
            work.plan.name,
            format_id(work.task.id),
            work.stop.value if work.stop else "",
        )
        self._pool.abandon(work)
        self.finished(work, stopped(work))

    def _wake_watcher(self) -> None:
        if self._watcher is not None and not self._watcher.done():
            self._watcher.set_result(None)


def _log_failure(work: Assignment, failed: Failed) -> None:
    """Tell of a failed attempt; the only place that does, whatever the pool."""
    failure, task_id = failed.failure, format_id(work.task.id)
    # A handler that asks for another try is about its business.
    level = logging.INFO if failure.type == Retry.__name__ else logging.WARNING
    _log.log(
        level,
        "task %s %s failed, attempt %d of %d%s: %s: %s%s",
        work.plan.name,
        task_id,
        work.task.attempts + 1,
        work.plan.spec.retry.max_attempts,
        ", for good" if failed.reject else "",
        failure.type,
        failure.message,
        f"\n{failure.traceback}" if failure.traceback else "",
        extra={"task_id": task_id, "task_name": work.plan.name},
    )
