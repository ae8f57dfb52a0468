"""Peers for a service under test: real messages over transports that only remember, time given by hand."""

import asyncio
from typing import Any

import msgspec

from tq.broker.config import BrokerSettings
from tq.broker.service import BrokerService
from tq.broker.sessions import Session
from tq.broker.sources import Log, Sources
from tq.core.ids import IdMaker
from tq.core.task import NewTask, TaskRecord, TaskSpec
from tq.core.worker import WorkerInfo
from tq.protocol import messages
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import QueueWeight, Role
from tq.store.base import Store
from tq.testing.simulated_store import SimulatedStore

START_MS = 1_800_000_000_000


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and says what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes: list[int] = []
        self.closed = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.writes.append(len(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Peer:
    """One connection to the service, as its other end."""

    def __init__(self, bench: "Bench") -> None:
        self.wire = Wire()
        self.session: Session = bench.service.connection()
        self.session.connection_made(self.wire)
        self._reader = FrameReader()
        self._correlation = 0

    def send(self, message: msgspec.Struct) -> None:
        """Send a request (or a notice, if the message is one)."""
        is_notice = messages.MESSAGES[messages.TYPE_OF[type(message)]].reply is None
        self._correlation += not is_notice
        self.session.data_received(bytes(encode_message(message, 0 if is_notice else self._correlation)))

    def received(self) -> list[Any]:
        """Return what has come since the last call."""
        data, self.wire.written = bytes(self.wire.written), bytearray()
        return [decode_message(frame.kind, frame.body) for frame in self._reader.feed(data)]


class Bench:
    """A service over *store*, with hands on its clocks."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.now_ms = START_MS
        self.seconds = 0.0
        self.logged: list[tuple[str, dict[str, object]]] = []
        sources = Sources(lambda: self.now_ms, lambda: self.seconds, lambda: 0.0, lambda: 0)
        log = Log(self._log, self._log, self._log)
        self.service = BrokerService(store, BrokerSettings(**{"store": "memory", **settings}), sources, log)
        self._made = 0
        self._ids = IdMaker(lambda: self.now_ms, self._entropy)

    async def start(self) -> "Bench":
        await self.service.start()
        return self

    def pass_time(self, ms: int) -> None:
        """Let the clocks run on, as a loop that was never late would have seen it."""
        for _ in range(ms // 250):
            self.now_ms += 250
            self.seconds += 0.25
            self._tick()
        self.now_ms += ms % 250
        self.seconds += ms % 250 / 1_000
        self._tick()

    def _tick(self) -> None:
        # Each tick arranges the next in the loop's own time, beside those that are arranged already.
        if self.service._ticker is not None:
            self.service._ticker.cancel()
        self.service._tick()

    async def client(self) -> Peer:
        return await self._greeted(messages.Hello(messages.MAGIC, messages.VERSIONS.first, Role.CLIENT))

    async def worker(
        self, *names: str, session: bytes = b"s" * 16, window: int = 100, window_bytes: int = 1 << 20
    ) -> Peer:
        info = WorkerInfo("w", "host", 1, "async", 1, list(names or ("noop",)))
        peer = await self._greeted(
            messages.Hello(messages.MAGIC, messages.VERSIONS.first, Role.WORKER, "", session, b"x" * 16, info)
        )
        peer.send(messages.Subscribe([QueueWeight("default", 1)]))
        peer.send(messages.Window(window, window_bytes))
        await settle()
        assert peer.received()[0] == messages.Ok()
        return peer

    async def keeper(self, session: bytes = b"s" * 16) -> Peer:
        hello = messages.Hello(messages.MAGIC, messages.VERSIONS.first, Role.KEEPER, "", session, b"x" * 16)
        return await self._greeted(hello)

    def enqueue(self, count: int = 1, payload: bytes = b"\x92\x90\x80", **spec: Any) -> messages.Enqueue:
        tasks = [NewTask(self.new_id(), 0, payload) for _ in range(count)]
        return messages.Enqueue(self.new_id(), [TaskSpec("noop", **spec)], tasks)

    def new_id(self) -> bytes:
        return self._ids.make()

    async def _greeted(self, hello: messages.Hello) -> Peer:
        peer = Peer(self)
        peer.send(hello)
        await settle()
        (welcome,) = peer.received()
        assert isinstance(welcome, messages.Welcome), welcome
        return peer

    def _entropy(self, count: int) -> bytes:
        self._made += 1
        return (self._made * 0x9E3779B97F4A7C15 % (1 << 8 * count)).to_bytes(count, "big")

    def _log(self, event: str, **values: object) -> None:
        self.logged.append((event, values))


async def settle(turns: int = 20) -> None:
    """Let the loop run until what was asked for has happened (nothing here waits for real time)."""
    for _ in range(turns):
        await asyncio.sleep(0)


def records(deliver: messages.Deliver) -> list[TaskRecord]:
    """Return the tasks of a delivery."""
    return [msgspec.msgpack.decode(record, type=TaskRecord) for record in deliver.records]


def stalling() -> SimulatedStore:
    """Return a store whose syncs end when the test says so."""
    return SimulatedStore(lambda _, callback: asyncio.get_running_loop().call_soon(callback))
