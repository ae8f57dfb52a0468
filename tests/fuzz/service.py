"""The broker's service, its engine and a store, under frames that no honest peer sends.

Values are harmed in messages that would be good: enqueues with fresh ids, outcomes under tokens
that live, so that they get through to the engine.  Whatever comes, the service goes on: after
each connection an honest client is served, and in the end all rows agree and can be taken up again.
"""

import random
from collections import defaultdict
from itertools import islice
from typing import Any

import msgspec

from tests.broker.peers import Bench, Peer, Wire, settle
from tests.fuzz.mutate import Mutator
from tests.upgrade.wire import SPEC
from tq.core.errors import RemoteProtocolError
from tq.core.lease import DeliveryRef
from tq.core.limits import FRAME_BYTES_MAX
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.core.task import NewTask, TaskSpec
from tq.core.worker import WorkerInfo
from tq.protocol import messages as m
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import TYPE_OF, Deliver, Enqueued, Error, Role, Type
from tq.protocol.states import NOTICES, SENT_BY
from tq.store.memory import MemoryStore
from tq.testing.invariants import check_invariants

_ROLES = [Role.CLIENT, Role.CLIENT, Role.WORKER, Role.WORKER, Role.KEEPER]
_SENT = {role: sorted(numbers) for role, numbers in SENT_BY.items()}
_SPECS = [TaskSpec("noop"), TaskSpec("noop", "mail", 255), TaskSpec("noop", "mail", 3, 1_000), SPEC]
_ERROR_CHARACTERS_MAX = 2_000


async def attack_service(draw: random.Random, frames: int) -> int:
    """Send about so many *frames* to a service; return how many it answered."""
    store = MemoryStore()
    bench = await Bench(store).start()
    attack = _Attack(bench, draw)
    while attack.sent < frames:
        await attack.connect()
    await settle()
    attack.check_alive()
    check_invariants(store, bench.service.engine)
    bench.service.kill()
    # What it has written can be read by the next.
    after = Bench(store)
    after.now_ms = bench.now_ms
    await after.start()
    await _Attack(after, draw).probe()
    after.service.kill()
    return attack.answered


class _Attack:
    """One service, those who attack it, and the client that it must serve meanwhile."""

    def __init__(self, bench: Bench, draw: random.Random) -> None:
        self.sent = self.answered = 0
        self._bench = bench
        self._mutator = Mutator(draw)
        self._draw = draw
        self._ids: list[bytes] = []
        # Of those workers that attack, by their sessions; and of the one that does just now.
        self._tokens_of: defaultdict[bytes, list[int]] = defaultdict(list)
        self._tokens: list[int] = []
        self._probe: Peer | None = None

    async def connect(self) -> None:
        """Open a connection, attack on it, close it most of the time in silence, and look after the others."""
        draw, bench = self._draw, self._bench
        role = draw.choice(_ROLES)
        self._mutator.harm = draw.choice([0.05, 0.2, 0.6])
        wire = Wire()
        session = bench.service.connection()
        session.connection_made(wire)
        name = bytes([draw.randrange(3)]) * 16
        self._tokens = self._tokens_of[name] if role is not Role.CLIENT else []
        hello = self._hello(role, name)
        session.data_received(_frame(hello, 1) if draw.random() < 0.9 else self._harmed(hello, 1))
        if role is Role.WORKER and draw.random() < 0.8:
            session.data_received(
                _frame(m.Subscribe([m.QueueWeight("default", 1), m.QueueWeight("mail", 2)]), 2)
                + _frame(m.Window(20, 1 << 20), 0)
            )
        await settle(3)
        self._read(wire)
        stream = b"".join(self._frames(role))
        for piece in self._mutator.cut(stream):
            session.data_received(piece)
        await settle(3)
        self._read(wire)
        if draw.random() < 0.2:
            bench.pass_time(draw.choice([10, 300, 2_000, 20_000]))
        session.connection_lost(None)
        await self.probe()

    async def probe(self) -> None:
        """Enqueue as an honest client, and see it acknowledged."""
        self.check_alive()
        if self._probe is None or self._probe.wire.closed:
            self._probe = await self._bench.client()
        good = self._bench.enqueue()
        self._probe.send(good)
        await settle(3)
        for _ in range(50):
            if answers := self._probe.received():
                break
            await settle(5)
        self.check_alive()
        assert answers == [Enqueued()], (answers, self._bench.logged[-3:])
        self._ids = [*self._ids[-30:], good.tasks[0].id]

    def check_alive(self) -> None:
        """Make sure that the service has not stopped."""
        failed = self._bench.service.failed
        assert failed is not None
        if failed.done():
            raise AssertionError("the service has stopped") from failed.exception()

    def _hello(self, role: Role, session: bytes) -> m.Hello:
        info = WorkerInfo("w", "host", 1, "async", 8, ["noop"])
        held = [m.Held(token, [0], [0]) for token in self._tokens[-2:]]
        match role:
            case Role.CLIENT:
                return m.Hello(m.MAGIC, m.VERSIONS.first, role)
            case Role.WORKER:
                return m.Hello(m.MAGIC, m.VERSIONS.first, role, "", session, b"x" * 16, info, held)
            case Role.KEEPER:
                return m.Hello(m.MAGIC, m.VERSIONS.first, role, "", session, b"x" * 16)

    def _frames(self, role: Role) -> list[bytes]:
        draw = self._draw
        frames = []
        self._mutator.values = [*self._ids[-5:], *self._tokens[-5:], self._bench.new_id()]
        for correlation in range(3, 3 + draw.randrange(1, 20)):
            kind = draw.choice(_SENT[role])
            if kind is Type.GOODBYE and draw.random() < 0.8:
                kind = Type.SETTLE
            message = self._good(kind)
            wanted = 0 if kind in NOTICES else correlation
            frames.append(self._harmed(message, wanted))
        self.sent += len(frames)
        return frames

    def _harmed(self, message: msgspec.Struct, correlation: int) -> bytes:
        tree: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
        return self._mutator.frame(TYPE_OF[type(message)], correlation, tree)

    def _good(self, kind: Type) -> msgspec.Struct:
        """Return a message that would do something."""
        draw = self._draw
        ids = list(islice(reversed(self._ids), draw.randrange(1, 5)))
        live = [DeliveryRef(token, draw.randrange(3)) for token in self._tokens[-3:]] or [DeliveryRef(1, 0)]
        match kind:
            case Type.ENQUEUE:
                bench = self._bench
                made = [bench.new_id() for _ in range(draw.randrange(1, 4))]
                self._ids += made
                tasks = [NewTask(task_id, 0, b"\x92\x90\x80") for task_id in made]
                return m.Enqueue(bench.new_id(), [draw.choice(_SPECS)], tasks)
            case Type.GET | Type.WAIT | Type.UNWAIT | Type.CANCEL:
                return {Type.GET: m.Get, Type.WAIT: m.Wait, Type.UNWAIT: m.Unwait, Type.CANCEL: m.Cancel}[kind](ids)
            case Type.SETTLE:
                failures = [FailedAttempt(ref.token, ref.index, TaskFailure("E", "text"), 5, False) for ref in live[:1]]
                return m.Settle([Done(ref.token, ref.index, b"\x01") for ref in live], failures)
            case Type.STARTED | Type.RELEASE:
                return (m.Started if kind is Type.STARTED else m.Release)(live)
            case Type.CONTROL_QUEUE:
                action = draw.choice([*m.QueueAction, m.QueueAction.RESUME, m.QueueAction.RESUME])
                return m.ControlQueue(draw.choice(["default", "mail"]), action)
            case Type.CONTROL_DEAD:
                return m.ControlDead(draw.choice(list(m.DeadAction)), "default", ids)
            case Type.LIST_TASKS:
                return m.ListTasks(draw.choice(["ready", "running", "scheduled", "dead"]), "default", 10, None)
            case Type.LIST_QUEUES:
                return m.ListQueues(draw.choice([None, "mail"]))
            case Type.SUBSCRIBE:
                return m.Subscribe([m.QueueWeight("default", 1)])
            case Type.WINDOW:
                return m.Window(draw.randrange(50), 1 << 20)
            case Type.HEARTBEAT:
                return m.Heartbeat(draw.randrange(1_000))
            case _:
                others: dict[Type, type[msgspec.Struct]] = {
                    Type.GOODBYE: m.Goodbye, Type.LIST_WORKERS: m.ListWorkers, Type.GET_STATS: m.GetStats,
                }  # fmt: skip
                return others.get(kind, m.Ping)()

    def _read(self, wire: Wire) -> None:
        """Make sure that all that was answered is whole and within bounds; note the tokens of what was delivered."""
        reader = FrameReader()
        try:
            frames = reader.feed(bytes(wire.written))
        except RemoteProtocolError as error:
            raise AssertionError(f"the broker broke a rule: {error}") from None
        assert reader.pending_bytes == 0
        for frame in frames:
            assert len(frame.body) <= FRAME_BYTES_MAX
            message = decode_message(frame.kind, frame.body)
            if isinstance(message, Error):
                assert len(message.text) <= _ERROR_CHARACTERS_MAX, message.text[:500]
                assert message.code != "internal", message
            if isinstance(message, Deliver):
                self._tokens.append(message.token)
                del self._tokens[:-20]
            self.answered += 1
        wire.written.clear()


def _frame(message: msgspec.Struct, correlation: int) -> bytes:
    return bytes(encode_message(message, correlation))
