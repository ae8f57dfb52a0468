"""The floor's clients: a producer, and a worker that runs each task as one of the event loop.

The floor keeps no results, so where latency is measured the worker is a second connection of the client.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import uvloop

from bench.systems.client import AsyncClient
from bench.systems.floor_broker import Kind, Peer, encode_frame
from bench.systems.loads import FRAME_TASKS, FRAMES_IN_FLIGHT, TEXT, port

ROOM_TASKS = 4_000

Call = tuple[list[object], dict[str, object]]

_encode = msgspec.msgpack.Encoder().encode
_decode_delivery = msgspec.msgpack.Decoder(list[tuple[bytes, Call]]).decode


class Count(NamedTuple):
    """What the floor tells of itself."""

    done: int
    workers: int


_decode_count = msgspec.msgpack.Decoder(Count).decode


class Connection(Peer):
    """Sends requests; each is answered once."""

    def __init__(self, delivered: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._delivered = delivered

    @classmethod
    async def open(cls, delivered: Callable[[bytes], None] | None = None) -> "Connection":
        """Return a connection to the floor; *delivered* is given each delivery."""
        _, connection = await asyncio.get_running_loop().create_connection(lambda: cls(delivered), "127.0.0.1", port())
        return connection

    def frame(self, kind: int, correlation: int, body: bytes) -> None:
        if kind == Kind.DELIVER:
            assert self._delivered is not None, "only who gave room gets deliveries"
            self._delivered(body)
        else:
            self._waiting.pop(correlation).set_result(body)

    def request(self, kind: Kind, body: bytes = b"") -> asyncio.Future[bytes]:
        """Send a request; the future ends with the answer, when what it asked for is durable."""
        self._last += 1
        waiting = self._waiting[self._last] = asyncio.get_running_loop().create_future()
        self.transport.write(encode_frame(kind, self._last, body))
        return waiting

    def enqueue(self, numbers: range) -> asyncio.Future[bytes]:
        """Enqueue tasks in one frame."""
        return self.request(Kind.ENQUEUE, _encode([([number, TEXT], {}) for number in numbers]))


class FloorWorker:
    """Runs *handler* for each delivered task and says so, once for each delivery."""

    def __init__(self, handler: Callable[..., object]) -> None:
        self._handler = handler
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Connect and give room; deliveries are served from now on."""
        self._connection = await Connection.open(self._delivered)
        await self._connection.request(Kind.ROOM, ROOM_TASKS.to_bytes(4, "big"))

    def _delivered(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        tasks = _decode_delivery(body)
        done: list[bytes] = []

        async def run(key: bytes, call: Call) -> None:
            args, kwargs = call
            self._handler(*args, **kwargs)
            done.append(key)
            if len(done) == len(tasks):
                self._connection.request(Kind.DONE, _encode(done))
                self._connection.request(Kind.ROOM, len(done).to_bytes(4, "big"))

        for key, call in tasks:
            # Each holds its own reference to the loop's task until it has run, in the next turn.
            self._running.add(task := loop.create_task(run(key, call)))
            task.add_done_callback(self._running.discard)


class FloorClient(AsyncClient):
    """Enqueues in frames."""

    loop_factory = staticmethod(uvloop.new_event_loop)

    async def open(self) -> None:
        self._connection = await Connection.open()
        self._started: dict[int, asyncio.Future[float]] = {}

    async def close(self) -> None:
        self._connection.transport.close()

    async def send(self, number: int) -> None:
        await self._connection.enqueue(range(number, number + 1))

    async def run_bulk(self, tasks: int) -> None:
        starts = iter(range(0, tasks, FRAME_TASKS))

        async def call() -> None:
            for start in starts:
                await self._connection.enqueue(range(start, min(start + FRAME_TASKS, tasks)))

        await asyncio.gather(*(call() for _ in range(FRAMES_IN_FLIGHT)))

    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        await FloorWorker(self._start).run()
        return await super().run_latency(tasks)

    async def ask(self, number: int) -> float:
        started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._started[number] = started
        await self.send(number)
        return await started

    async def done(self) -> int:
        return _decode_count(await self._connection.request(Kind.COUNT)).done

    async def hold(self) -> None:
        """Deliver nothing from now on."""
        await self._connection.request(Kind.HOLD, b"\x01")

    async def let_go(self) -> None:
        """Deliver again."""
        await self._connection.request(Kind.HOLD, b"\x00")

    def _start(self, number: int, _text: str) -> None:
        self._started.pop(number).set_result(time.monotonic())


def _noop(number: int, text: str) -> None:
    """Do nothing."""


async def _work() -> None:
    await FloorWorker(_noop).run()
    await asyncio.Event().wait()


def client(_task: str) -> FloorClient:
    """Return the client; there is one kind of task."""
    return FloorClient()


def work(_shape: str) -> None:
    """Be a worker."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work())
