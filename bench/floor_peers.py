"""The floor's clients: a producer, and a worker that runs each task as one of the event loop.

python -m bench.floor_peers PORT       a worker process, until it is told to stop
"""

import asyncio
import sys
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import uvloop

from bench.floor import Kind, Peer, encode_frame

ROOM_TASKS = 4_000

Call = tuple[list[object], dict[str, object]]

_encode = msgspec.msgpack.Encoder().encode
_decode_delivery = msgspec.msgpack.Decoder(list[tuple[bytes, Call]]).decode


class Count(NamedTuple):
    """What the floor tells of itself."""

    done: int
    workers: int


_decode_count = msgspec.msgpack.Decoder(Count).decode


class FloorClient(Peer):
    """Sends requests; each is answered once."""

    def __init__(self, delivered: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._delivered = delivered

    @classmethod
    async def connect(cls, port: int, delivered: Callable[[bytes], None] | None = None) -> "FloorClient":
        """Return a connected client; *delivered* is given each delivery."""
        _, client = await asyncio.get_running_loop().create_connection(lambda: cls(delivered), "127.0.0.1", port)
        return client

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

    def enqueue(self, calls: list[Call]) -> asyncio.Future[bytes]:
        """Enqueue calls in one frame."""
        return self.request(Kind.ENQUEUE, _encode(calls))

    async def count(self) -> Count:
        """Return how much is done."""
        return _decode_count(await self.request(Kind.COUNT))


class FloorWorker:
    """Runs *handler* for each delivered task and says so, once for each delivery."""

    def __init__(self, handler: Callable[..., object]) -> None:
        self._handler = handler

    async def run(self, port: int) -> FloorClient:
        """Connect and give room; deliveries are served from now on."""
        self._client = await FloorClient.connect(port, self._delivered)
        await self._client.request(Kind.ROOM, ROOM_TASKS.to_bytes(4, "big"))
        return self._client

    def _delivered(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        tasks = _decode_delivery(body)
        done: list[bytes] = []

        async def run(key: bytes, call: Call) -> None:
            args, kwargs = call
            self._handler(*args, **kwargs)
            done.append(key)
            if len(done) == len(tasks):
                self._client.request(Kind.DONE, _encode(done))
                self._client.request(Kind.ROOM, len(done).to_bytes(4, "big"))

        for key, call in tasks:
            # Each holds its own reference to the loop's task until it has run, in the next turn.
            running.add(task := loop.create_task(run(key, call)))
            task.add_done_callback(running.discard)


running: set[asyncio.Task[None]] = set()


def _noop(number: int, text: str) -> None:
    """Do nothing."""


async def _work(port: int) -> None:
    await FloorWorker(_noop).run(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(int(sys.argv[1])))
