"""The service: between connections and the engine, turn by turn.

    _turn: sessions -> _serve: decode, Engine.apply into the batch being built
           GroupCommit.advance: dispatch, seal, Store.commit (one batch in flight)
           _let_out: replies, deliveries, results, only once the batch is durable

While one batch is being made durable the next is built, from whatever arrives.  A read's
reply waits with the batch in which it was read, behind all batches that it saw.

Invariant: nothing is said before the batch it rests on is durable; after a commit that
failed, or a bug, nothing is said at all, and the service stops.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from tq.broker.batch import Batch, in_frames
from tq.broker.clock import READ_EVERY_S, EngineClock
from tq.broker.commit import GroupCommit
from tq.broker.config import BrokerSettings
from tq.broker.requests import ANSWERS
from tq.broker.sessions import Session
from tq.core.errors import (
    BrokerError,
    GoingAway,
    Overloaded,
    ProtocolViolation,
    RemoteProtocolError,
    SessionUnknown,
)
from tq.core.outcome import TaskResult
from tq.engine.changes import Changes
from tq.engine.commands import Disconnect, ListQueues, Tick, Unwait
from tq.engine.engine import Engine, EngineSettings
from tq.engine.enqueue import TASKS_MAX
from tq.protocol import messages
from tq.protocol.connection import Request
from tq.protocol.messages import Type
from tq.protocol.states import ConnectionState
from tq.store.base import Store

# Connections take turns: so much of one client's requests, then the next client's.
TURN_BYTES = 64 * 1024
# After so long the loop gets to read its sockets again.
_TURN_S_MAX = 0.005
_HEALTH_EVERY_S = 0.05
# Who connects and does not say who it is holds a descriptor that others need.
_HELLO_S = 10.0


class Log(msgspec.Struct, frozen=True):
    """Where the service reports: each a function of an event and its values."""

    info: Callable[..., object]
    warning: Callable[..., object]
    error: Callable[..., object]


class Sources(msgspec.Struct, frozen=True):
    """What the service takes from outside, so that a test can be the one to give it.

    ``wall``: milliseconds since the epoch; ``monotonic``: seconds; ``draw``: a random
    number 0 <= n < 1; ``rss_bytes``: the memory of the process.
    """

    wall: Callable[[], int]
    monotonic: Callable[[], float]
    draw: Callable[[], float]
    rss_bytes: Callable[[], int]


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
            TASKS_MAX,
            settings.heartbeat_ms,
            settings.lease_ms,
        )
        self.full: str | None = None
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
        self._commit = GroupCommit(
            self.engine, store, sources.monotonic, let_out=self._let_out, go_on=self._go_on, fail=self._fail
        )
        self._numbers = count(1)
        self._sessions: dict[int, Session] = {}
        self._hellos_due: deque[tuple[float, int]] = deque()
        self._workers: dict[bytes, Session] = {}
        self._urgent: deque[Session] = deque()
        self._waiting: deque[Session] = deque()
        self._buffered_bytes = 0
        self._turn_due: asyncio.Handle | None = None
        self._held_back = False
        self._health_at = 0.0
        self._stopping = False
        self._said_all: asyncio.Event = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        self._started_at = 0

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
        self._check_health()
        self._tick()

    async def stop(self) -> None:
        """Take nothing new, answer what is under way within ``drain_ms``, make all durable, close.

        Idempotent; the store is left open for its owner to close.
        """
        if self._stopping or self.failed is None:
            return
        self._stopping = True
        for session in self._sessions.values():
            if session.conn.role is not None:
                self._batch.say(session, session.conn.push(messages.GoingAway("the broker is stopping")))
        self._turn()
        try:
            async with asyncio.timeout(self._settings.drain_ms / 1_000):
                await self._said_all.wait()
        except TimeoutError:
            self._log.warning("stop.unanswered", sessions=len(self._sessions), after_ms=self._settings.drain_ms)
        if self._ticker is not None:
            self._ticker.cancel()
        for session in list(self._sessions.values()):
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
        self._sessions[session.number] = session
        self._hellos_due.append((self._sources.monotonic() + _HELLO_S, session.number))
        if self._stopping:
            return GoingAway("the broker is stopping")
        if len(self._sessions) > self._settings.connections_max:
            return Overloaded(f"{self._settings.connections_max} connections are open, as many as may")
        return None

    def closed(self, session: Session) -> None:
        """Forget *session*; what its worker holds stays under its leases.

        What a worker said with its last breath still counts: an outcome, or that a task had
        started which then killed it.
        """
        self._sessions.pop(session.number, None)
        session.writing_paused = False
        if session.worker is not None and self._workers.get(session.worker) is session and session.inbox:
            try:
                self._serve(session, session.inbox_bytes, self._clock.now())
            except Exception as error:  # noqa: BLE001 - a bug, as in a turn
                self._fail(error)
                return
        self._apply_quietly(Unwait(session.number, None))
        if session.worker is not None and self._workers.get(session.worker) is session:
            del self._workers[session.worker]
            self._apply_quietly(Disconnect(session.worker))
        self._schedule_turn()

    def arrived(self, session: Session) -> None:
        """Queue *session* for a turn."""
        if not session.queued:
            session.queued = True
            (self._urgent if session.urgent else self._waiting).append(session)
        self._schedule_turn()

    def may_buffer(self, count: int) -> bool:
        """Count bytes of waiting requests, of all sessions together."""
        self._buffered_bytes += count
        return self._buffered_bytes < self._settings.buffer_bytes_max

    def replace(self, session: Session, worker: bytes) -> None:
        """Let *session* speak for *worker*, and close the connection that did before."""
        session.worker = worker
        former = self._workers.get(worker)
        self._workers[worker] = session
        if former is not None and former is not session:
            self._batch.closing.append(former)

    def stats(self, now: int, changes: Changes) -> messages.Stats:
        """Return the figures of the broker as a whole."""
        queues = self.engine.apply(ListQueues(None), now, changes)
        health, commit = self._store.health(), self._commit
        return messages.Stats(
            server=self.server,
            started_at=self._started_at,
            clock_ms=now,
            durability=health.durability.value if health.durability else "none",
            store=health.kind,
            connections=len(self._sessions),
            workers=len(self._workers),
            queues=len(queues),
            ready=sum(queue.ready for queue in queues),
            running=sum(queue.running for queue in queues),
            scheduled=sum(queue.scheduled for queue in queues),
            dead=sum(queue.dead for queue in queues),
            enqueued_total=sum(queue.enqueued_total for queue in queues),
            completed_total=sum(queue.completed_total for queue in queues),
            failed_total=sum(queue.failed_total for queue in queues),
            lost_total=sum(queue.lost_total for queue in queues),
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

    def _turn(self) -> None:
        """Serve whoever asks, and commit what that made unless a batch is in flight."""
        if self._turn_due is not None:
            self._turn_due.cancel()
            self._turn_due = None
        if self._commit.is_closed:
            return
        try:
            now = self._clock.now()
            self._serve_all(now)
            self._commit.advance(now, hand_out=not self._stopping)
        except Exception as error:  # noqa: BLE001 - a failed commit, or a bug: what the batch holds is not to be trusted
            self._fail(error)
            return
        self._go_on()

    def _go_on(self) -> None:
        """Have another turn if there is something to do that waits for no commit; note when there is nothing left."""
        commit = self._commit
        takes_clients = self._waiting and not self._held_back and not commit.batch.full
        if self._urgent or takes_clients or (not commit.in_flight and (commit.has_more or not commit.batch.empty)):
            self._schedule_turn()
        elif self._stopping and not self._waiting and not commit.in_flight:
            self._said_all.set()

    def _serve_all(self, now: int) -> None:
        """Serve workers whole, then clients in turns, until the batch is full or the loop must read again."""
        while self._urgent:
            session = self._urgent.popleft()
            session.queued = False
            self._serve(session, TURN_BYTES * 1_000, now)
        until = self._sources.monotonic() + _TURN_S_MAX
        while self._waiting and not self._batch.full and not self._held_back:
            session = self._waiting.popleft()
            session.queued = False
            self._serve(session, TURN_BYTES, now)
            if self._sources.monotonic() >= until:
                break

    def _serve(self, session: Session, bytes_max: int, now: int) -> None:
        """Give *session* its turn."""
        served = 0
        while session.inbox and served < bytes_max and not session.writing_paused:
            frame = session.take()
            served += frame.size
            try:
                request = session.conn.decode(frame)
            except RemoteProtocolError as violation:
                session.violation = violation
                break
            self._answer(session, request, now)
            if session.conn.state is ConnectionState.CLOSING:
                self._batch.closing.append(session)
                session.void()
                return
        if session.violation is not None:
            self._dismiss(session, session.violation)
        elif session.inbox and not session.writing_paused:
            self.arrived(session)

    def _answer(self, session: Session, request: Request, now: int) -> None:
        batch = self._batch
        batch.bytes_in += request.size
        try:
            reply = ANSWERS[request.kind](self, session, request.message, now, batch.changes)
            data = None if reply is None else session.conn.reply(request.correlation, reply)
        except BrokerError as error:
            if request.correlation:
                batch.say(session, session.conn.refuse(request.correlation, error))
            else:
                batch.say(session, session.dismiss(error))
            return
        if data is None:
            return
        if request.kind is Type.HEARTBEAT:
            session.write(data)  # it promises nothing that a stalled disk could delay
        else:
            batch.say(session, data)

    def _dismiss(self, session: Session, violation: RemoteProtocolError) -> None:
        self._log.warning("connection.violation", peer=session.peer, error=str(violation))
        self._batch.say(session, session.conn.last_words)
        self._batch.closing.append(session)
        session.void()

    def _apply_quietly(self, command: Unwait | Disconnect) -> None:
        self.engine.apply(command, self._clock.now(), self._batch.changes)

    # ------------------------------------------------------------------ time

    def _tick(self) -> None:
        """Let time pass for the engine, once the heartbeats that have come are applied."""
        if self._stopping or self._commit.is_closed:
            return
        try:
            now = self._clock.now()
            self._serve_all(now)
            if self.engine.next_tick(now) <= now and not self._batch.full:
                self.engine.apply(Tick(), now, self._batch.changes)
        except Exception as error:  # noqa: BLE001 - a bug, as above
            self._fail(error)
            return
        self._check_health()
        self._dismiss_the_silent()
        self._turn()
        wait_ms = self.engine.next_tick(now) - now
        # One slice of a large operation a batch: the next tick comes with the next turn of the loop.
        self._ticker = asyncio.get_running_loop().call_later(min(READ_EVERY_S, max(wait_ms, 1) / 1_000), self._tick)

    def _dismiss_the_silent(self) -> None:
        """Close the connections that have not said hello in time."""
        at = self._sources.monotonic()
        while self._hellos_due and self._hellos_due[0][0] <= at:
            session = self._sessions.get(self._hellos_due.popleft()[1])
            # One whose hello waits for its turn has spoken: it is the broker that is late.
            if session is not None and session.conn.role is None and not session.inbox:
                session.write(session.dismiss(ProtocolViolation(f"no HELLO within {_HELLO_S:g} s")))
                session.close()

    def _check_health(self) -> None:
        at = self._sources.monotonic()
        if at < self._health_at:
            return
        self._health_at = at + _HEALTH_EVERY_S
        health = self._store.health()
        free, reserve = health.disk_free_bytes, self._settings.disk_reserve_bytes
        full = None
        if free is not None and free < reserve:
            full = f"the broker's disk has {free} bytes free; below its reserve of {reserve} it takes no new tasks"
        if (full is None) is not (self.full is None):
            (self._log.warning if full else self._log.info)("disk.full" if full else "disk.free", free_bytes=free)
        self.full = full
        # RocksDB would block the loop: clients wait in their sockets until it has caught up.
        held_back = health.is_write_stopped or health.is_write_delayed
        if held_back is not self._held_back:
            self._held_back = held_back
            self._log.warning("store.behind" if held_back else "store.caught_up")
            if not held_back:
                self._schedule_turn()

    # ------------------------------------------------------------------ letting out

    def _let_out(self, batch: Batch) -> None:
        """Say what the batch has to say: it is durable."""
        self._push(batch)
        for session, said in batch.spoken.items():
            session.write(said[0] if len(said) == 1 else b"".join(said))
        for session in batch.closing:
            session.close()

    def _push(self, batch: Batch) -> None:
        changes = batch.changes
        for delivery in changes.deliveries:
            session = self._workers.get(delivery.session)
            if session is not None:
                records = [msgspec.Raw(record) for record in delivery.records]
                batch.say(session, session.conn.push(messages.Deliver(delivery.token, delivery.alone, records)))
        for revocation in changes.revocations:
            session = self._workers.get(revocation.session)
            if session is not None:
                batch.say(session, session.conn.push(messages.Revoke(revocation.tasks)))
        for worker in changes.expelled:
            self._expel(batch, worker)
        results: dict[int, list[TaskResult]] = {}
        for ending in changes.endings:
            for number in ending.waiters:
                results.setdefault(number, []).append(ending.result)
        for number, ended in results.items():
            session = self._sessions.get(number)
            if session is not None:
                for part in in_frames(ended, self._settings.frame_bytes_max):
                    batch.say(session, session.conn.push(messages.Results(part)))

    def _expel(self, batch: Batch, worker: bytes) -> None:
        """End the connection of a worker that was silent for too long: it may live, and must register anew."""
        session = self._workers.get(worker)
        if session is not None:
            error = SessionUnknown(f"worker session {worker.hex()} was silent for {self._settings.lease_ms} ms")
            batch.say(session, session.dismiss(error))
            batch.closing.append(session)

    def _fail(self, error: Exception) -> None:
        """Stop for good: nothing that is not durable has been said, and nothing more will be."""
        if self.failed is None or self.failed.done():
            return
        self._log.error("service.failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        self._stopping = True
        self._commit.close()
        self._said_all.set()
        self.failed.set_exception(error)
        for session in list(self._sessions.values()):
            session.close()
