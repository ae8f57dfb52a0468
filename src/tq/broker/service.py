"""The service: between connections and the engine, turn by turn.

    Turns.serve: sessions in turn -> decode, Engine.apply into the batch being built
           GroupCommit.advance: dispatch, seal, Store.commit (one batch in flight)
           Outlet.let_out: replies, deliveries, results, only once the batch is durable

While one batch is being made durable the next is built, from whatever arrives.  A read's
reply waits with the batch in which it was read, behind all batches that it saw.

Invariant: nothing is said before the batch it rests on is durable; after a commit that
failed, or a bug, nothing is said at all, and the service stops.
"""

import asyncio
import functools
from collections.abc import Callable
from itertools import count
from typing import TypeVar, cast

from tq.broker.batch import Batch
from tq.broker.clock import READ_EVERY_S, EngineClock
from tq.broker.commit import GroupCommit
from tq.broker.config import BrokerSettings
from tq.broker.connections import HELLO_S, Connections
from tq.broker.outlet import Outlet
from tq.broker.pressure import Pressure
from tq.broker.sessions import Session
from tq.broker.sources import Log, Sources
from tq.broker.turns import Turns
from tq.core.errors import BrokerError, GoingAway, Overloaded, ProtocolViolation
from tq.core.limits import FRAME_TASKS_MAX
from tq.engine.changes import Changes
from tq.engine.commands import Disconnect, GetTotals, SetReading, Tick, Unwait
from tq.engine.engine import Engine, EngineSettings
from tq.protocol import messages
from tq.store.base import Store

# Peers that keep descriptors and memory for nothing are looked for so often.
SWEEP_S = 10.0

_Step = TypeVar("_Step", bound=Callable[..., None])


def _fail_stop(step: _Step) -> _Step:
    """Let a failure of *step*, which the loop calls, stop the service.

    One that ended in the loop's own handler would leave a broker that looks well and lets no time pass.
    """

    @functools.wraps(step)
    def guarded(service: "BrokerService", *arguments: object, **named: object) -> None:
        try:
            step(service, *arguments, **named)
        except Exception as error:  # noqa: BLE001 - a failed commit, or a bug: what the batch holds is not to be trusted
            service._fail(error)  # noqa: SLF001 - this is a part of it

    return cast(_Step, guarded)


class BrokerService:
    """A broker without its listening socket: give each connection a `connection()`.

    `start` takes up the store's rows; `failed` ends with the error that stopped the
    service; `stop` ends it in good order.
    """

    def __init__(
        self, store: Store, settings: BrokerSettings, sources: Sources, log: Log, *, version: str = ""
    ) -> None:
        self.server = f"tq-broker {version}".strip()
        self.connection_bytes_max = settings.connection_bytes_max
        self.frame_bytes_max = settings.frame_bytes_max
        self.limits = messages.Limits(
            settings.frame_bytes_max,
            settings.payload_bytes_max,
            FRAME_TASKS_MAX,
            settings.heartbeat_ms,
            settings.lease_ms,
        )
        self.pressure = Pressure(store, settings, sources.monotonic, log)
        self.failed: asyncio.Future[None] | None = None
        self._store = store
        self._settings = settings
        self._sources = sources
        self._log = log
        self._clock = EngineClock(sources.wall, sources.monotonic)
        self.engine = Engine(
            store,
            EngineSettings(
                lease_ms=settings.lease_ms,
                payload_bytes_max=settings.payload_bytes_max,
                frame_memory_ms=settings.frame_memory_ms,
                dead_retention_ms=settings.dead_retention_ms,
                queues_max=settings.queues_max,
            ),
            sources.draw,
        )
        self._connections = Connections()
        self._outlet = Outlet(self._connections, self.limits)
        self._commit = GroupCommit(
            self.engine, store, sources.monotonic,
            let_out=self._outlet.let_out, go_on=self._go_on, fail=self._fail,
        )  # fmt: skip
        self._turns = Turns(
            self, self._commit, self.pressure, sources.monotonic, log, forget=self._forget,
        )  # fmt: skip
        self._numbers = count(1)
        self._turn_due: asyncio.Handle | None = None
        self._stopping = False
        self._said_all = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._started_at = 0
        self._sweep_at = sources.monotonic() + SWEEP_S

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Take up the rows of the store and begin to serve.

        Raises:
            StoreError: The rows cannot be read, or the new epoch cannot be written.
        """
        loop = asyncio.get_running_loop()
        changes, now = self.engine.restore(self._clock.now())
        self._clock.begin(now)
        self._started_at = now
        await self._store.commit(changes.writes, sync=True)
        self.failed = loop.create_future()
        self._tick()

    async def stop(self) -> None:
        """Take nothing new, answer what is under way within ``drain_ms``, make all durable, close.

        Idempotent; the store is left open for its owner to close.
        """
        if self._stopping or self.failed is None:
            return
        self._stopping = True
        for session in self._connections:
            if session.conn.role is not None:
                self._batch.say(session, session.conn.push(messages.GoingAway("the broker is stopping")))
        self._turn()
        try:
            async with asyncio.timeout(self._settings.drain_ms / 1_000):
                await self._said_all.wait()
        except TimeoutError:
            self._log.warning("stop.unanswered", sessions=len(self._connections), after_ms=self._settings.drain_ms)
        if self._ticker is not None:
            self._ticker.cancel()
        for session in self._connections:
            session.close()

    def kill(self) -> None:
        """End at once, without a farewell, as the end of the process would: for whoever simulates one."""
        self._stopping = True
        self._commit.close()
        for ending in (self._turn_due, self._ticker):
            if ending is not None:
                ending.cancel()

    # ------------------------------------------------------------------ sessions' host

    def connection(self) -> Session:
        """Return the protocol of a new connection (an asyncio protocol factory)."""
        return Session(self, next(self._numbers))

    def opened(self, session: Session) -> BrokerError | None:
        """Take *session* in, unless there are too many or the service stops."""
        self._connections.add(session, self._sources.monotonic())
        if self._stopping:
            return GoingAway("the broker is stopping")
        if len(self._connections) > self._settings.connections_max:
            return Overloaded(f"{self._settings.connections_max} connections are open, as many as may")
        return None

    def arrived(self, session: Session) -> None:
        """Queue *session* for a turn."""
        self._turns.add(session)
        self._schedule_turn()

    @_fail_stop
    def reading(self, session: Session, *, reads: bool) -> None:
        """*session*'s peer no longer reads what it is sent, or does again: a worker gets no tasks meanwhile."""
        if self._connections.speaks(session):
            assert session.worker is not None
            self._apply_quietly(SetReading(session.worker, reads))
        if reads:
            self._schedule_turn()

    @_fail_stop
    def closed(self, session: Session) -> None:
        """Forget *session*; what its worker holds stays under its leases.

        What a worker said with its last breath still counts: an outcome, or that a task had
        started which then killed it.  It waits for its turn like everything else.
        """
        if session.asks and self._connections.speaks(session) and not self._commit.is_closed:
            self.arrived(session)
        else:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        """End *session*, whose connection is lost; a second call does nothing."""
        if self._connections.numbered(session.number) is None:
            return
        session.end()
        worker = self._connections.remove(session)
        if self._commit.is_closed:
            return
        self._apply_quietly(Unwait(session.number, None))
        if worker is not None:
            self._apply_quietly(Disconnect(worker))
        self._schedule_turn()

    # ------------------------------------------------------------------ requests' host

    def appoint(self, session: Session, worker: bytes) -> None:
        """Let *session* speak for *worker*, and close the connection that did before."""
        former = self._connections.appoint(session, worker)
        if former is not None:
            self._batch.closing.append(former)

    def retire(self, session: Session) -> None:
        """Let *session* speak for no worker any more."""
        self._connections.retire(session)

    def ask_store(self) -> None:
        """Let the answer to this request tell that the store has answered too."""
        self._batch.is_barrier = True

    def stats(self, now: int, changes: Changes) -> messages.Stats:
        """Return the figures of the broker as a whole."""
        totals = self.engine.apply(GetTotals(), now, changes)
        health, commit = self._store.health(), self._commit
        return messages.Stats(
            server=self.server,
            started_at=self._started_at,
            clock_ms=now,
            durability=health.durability.value if health.durability else "none",
            store=health.kind,
            connections=len(self._connections),
            workers=self._connections.workers,
            queues=totals.queues,
            ready=totals.ready,
            running=totals.running,
            scheduled=totals.scheduled,
            dead=totals.dead,
            enqueued_total=totals.enqueued_total,
            completed_total=totals.completed_total,
            failed_total=totals.failed_total,
            lost_total=totals.lost_total,
            commits_total=commit.commits,
            commit_ms_mean=round(commit.seconds * 1_000 / commit.commits, 3) if commit.commits else 0.0,
            rss_bytes=self._sources.rss_bytes(),
            disk_free_bytes=health.disk_free_bytes,
        )

    # ------------------------------------------------------------------ turns

    @property
    def _batch(self) -> Batch:
        """The batch being built."""
        return self._commit.batch

    def _schedule_turn(self) -> None:
        if self._turn_due is None and not self._commit.is_closed:
            self._turn_due = asyncio.get_running_loop().call_soon(self._turn)

    @_fail_stop
    def _turn(self, *, time_passes: bool = False) -> None:
        """Serve whoever asks, and commit what that made unless a batch is in flight.

        Time passes after what has come is served: heartbeats count before anything is over.
        """
        if self._turn_due is not None:
            self._turn_due.cancel()
            self._turn_due = None
        if self._commit.is_closed:
            return
        now = self._clock.now()
        self._turns.serve(now)
        if time_passes and self.engine.next_tick(now) <= now and not self._batch.full:
            self.engine.apply(Tick(), now, self._batch.changes)
        self._commit.advance(now, hand_out=not self._stopping)
        self._go_on()

    def _go_on(self) -> None:
        """Have another turn if there is something to do that waits for no commit; note when there is nothing left."""
        commit, turns = self._commit, self._turns
        turns.take_up_unfinished()
        if turns.may_go_on or (not commit.in_flight and (commit.has_more or not commit.batch.empty)):
            self._schedule_turn()
        elif self._stopping and turns.is_idle and not commit.in_flight:
            self._said_all.set()

    def _apply_quietly(self, command: Unwait | Disconnect | SetReading) -> None:
        self.engine.apply(command, self._clock.now(), self._batch.changes)

    # ------------------------------------------------------------------ time

    @_fail_stop
    def _tick(self) -> None:
        """Let time pass."""
        if self._stopping or self._commit.is_closed:
            return
        self.pressure.check()
        self._dismiss_the_silent()
        self._turn(time_passes=True)
        if self._commit.is_closed:
            return
        now = self._clock.now()
        wait_ms = self.engine.next_tick(now) - now
        # One slice of a large operation a batch: the next tick comes with the next turn of the loop.
        self._ticker = asyncio.get_running_loop().call_later(min(READ_EVERY_S, max(wait_ms, 1) / 1_000), self._tick)

    def _dismiss_the_silent(self) -> None:
        """Close the connections that said no hello in time or stopped in the middle of a frame; end those closed."""
        at = self._sources.monotonic()
        silent = [(session, f"no HELLO within {HELLO_S:g} s") for session in self._connections.silent(at)]
        if at >= self._sweep_at:
            self._sweep_at = at + SWEEP_S
            for session in self._connections:
                if session.is_gone:
                    continue  # It is ended once its last words have had their turn.
                if session.is_leaving_late():
                    session.abort()
                elif session.is_stuck():
                    silent.append((session, f"nothing more of a frame that had begun within {SWEEP_S:g} s"))
        for session, reason in silent:
            session.write(session.dismiss(ProtocolViolation(reason)))
            session.close()

    def _fail(self, error: Exception) -> None:
        """Stop for good: nothing that is not durable has been said, and nothing more will be."""
        if self.failed is None or self.failed.done():
            return
        self._log.error("service.failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        self._stopping = True
        self._commit.close()
        self._said_all.set()
        self.failed.set_exception(error)
        for session in self._connections:
            session.close()
