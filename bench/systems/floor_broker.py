"""The floor: a bare broker of sockets, MessagePack and RocksDB, that does what no queue can do without.

It takes tasks, makes them durable, hands them to workers and forgets them when they are
done: no names, states, retries, leases that expire, results, limits or checks.  What the
product needs beyond this is what its semantics cost.

    python -m bench.systems.floor_broker DIRECTORY        prints "listening on 127.0.0.1:PORT"

A task costs one row written and one deleted; a delivery costs one row.  One batch is in
flight at a time, what arrives meanwhile is the next: it is written without sync on the
loop, then the log is synced in a thread (which lets go of the GIL), then answers go out.

Invariant: no answer and no delivery leaves before the batch it rests on is durable.
"""

import asyncio
import sys
from collections import deque
from enum import IntEnum
from struct import Struct

import msgspec
import uvloop
from rocksdict import Options, Rdict, WriteBatch

HEADER = Struct(">IBI")
"""Length of the body, kind, correlation."""
DELIVERY_TASKS_MAX = 500


class Kind(IntEnum):
    """What a frame is."""

    ENQUEUE = 1
    """A list of tasks, each an opaque MessagePack value."""
    OK = 2
    ROOM = 3
    """So many more tasks may be delivered to this connection."""
    DELIVER = 4
    """The key of the first task, then the tasks, in order."""
    DONE = 5
    """The keys of delivered tasks."""
    HOLD = 6
    """Deliver nothing from now on (1), or deliver again (0)."""
    COUNT = 7
    """How many tasks are done, and how many connections gave room."""


def encode_frame(kind: Kind, correlation: int, body: bytes = b"") -> bytes:
    """Return a frame."""
    return HEADER.pack(len(body), kind, correlation) + body


class Peer(asyncio.Protocol):
    """One end of a connection: cuts what arrives into frames for `frame`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEADER.size:
            size, kind, correlation = HEADER.unpack_from(buffer, at)
            end = at + HEADER.size + size
            if end > len(buffer):
                break
            self.frame(kind, correlation, bytes(buffer[at + HEADER.size : end]))
            at = end
        del buffer[:at]

    def frame(self, kind: int, correlation: int, body: bytes) -> None:
        """A frame has come."""
        raise NotImplementedError


class _Client(Peer):
    """A connection, as the broker sees it."""

    def __init__(self, broker: "FloorBroker") -> None:
        super().__init__()
        self._broker = broker
        self.room = 0

    def frame(self, kind: int, correlation: int, body: bytes) -> None:
        self._broker.arrived(self, kind, correlation, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._broker.workers.discard(self)


class FloorBroker:
    """The whole broker."""

    def __init__(self, directory: str) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        self._store = Rdict(directory, options)
        self.workers: set[_Client] = set()
        self._ready: deque[tuple[bytes, msgspec.Raw]] = deque()
        self._inbox: list[tuple[_Client, int, int, bytes]] = []
        self._work = asyncio.Event()
        self._key = 0
        self._deliveries = 0
        self._done = 0
        self._is_held = False

    def arrived(self, client: _Client, kind: int, correlation: int, body: bytes) -> None:
        """Take a frame into the next batch."""
        self._inbox.append((client, kind, correlation, body))
        self._work.set()

    async def serve(self) -> None:
        """Build and commit batch after batch."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            batch, out, must_sync = WriteBatch(raw_mode=True), [], False
            inbox, self._inbox = self._inbox, []
            for client, kind, correlation, body in inbox:
                must_sync |= kind in {Kind.ENQUEUE, Kind.DONE}
                out.append((client, encode_frame(Kind.OK, correlation, self._apply(batch, client, kind, body))))
            out += self._deliver(batch)
            if batch.len():
                self._store.write(batch)
            if must_sync:
                await loop.run_in_executor(None, self._store.flush_wal, True)
            for client, data in out:
                client.transport.write(data)
            if self._ready and any(worker.room for worker in self.workers) and not self._is_held:
                self._work.set()
                await asyncio.sleep(0)

    def _apply(self, batch: WriteBatch, client: _Client, kind: int, body: bytes) -> bytes:
        match Kind(kind):
            case Kind.ENQUEUE:
                for task in _decode_tasks(body):
                    self._key += 1
                    key = self._key.to_bytes(8, "big")
                    batch.put(b"R" + key, bytes(task))
                    self._ready.append((key, task))
            case Kind.DONE:
                keys = _decode_keys(body)
                for key in keys:
                    batch.delete(b"R" + key)
                self._done += len(keys)
            case Kind.ROOM:
                client.room += int.from_bytes(body, "big")
                self.workers.add(client)
            case Kind.HOLD:
                self._is_held = bool(body[0])
            case Kind.COUNT:
                return _encode((self._done, len(self.workers)))
            case Kind.OK | Kind.DELIVER:
                raise AssertionError("a client sends no such frame")
        return b""

    def _deliver(self, batch: WriteBatch) -> list[tuple[_Client, bytes]]:
        out = []
        for worker in self.workers if not self._is_held else ():
            count = min(worker.room, DELIVERY_TASKS_MAX, len(self._ready))
            if count:
                tasks = [self._ready.popleft() for _ in range(count)]
                worker.room -= count
                self._deliveries += 1
                batch.put(b"L" + self._deliveries.to_bytes(8, "big"), b"".join(key for key, _ in tasks))
                out.append((worker, encode_frame(Kind.DELIVER, 0, _encode(tasks))))
        return out


_encode = msgspec.msgpack.Encoder().encode
_decode_tasks = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_keys = msgspec.msgpack.Decoder(list[bytes]).decode


async def _main(directory: str) -> None:
    broker = FloorBroker(directory)
    server = await asyncio.get_running_loop().create_server(lambda: _Client(broker), "127.0.0.1", 0)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await broker.serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1]))
