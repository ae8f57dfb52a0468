"""A TCP proxy that cuts connections: `python -m bench.soak.proxy PORT SECONDS` forwards to PORT of this machine.

Every so many seconds each connection is cut with a chance of one half, at both ends and in the
middle of whatever goes over it.  Where it listens is the one line that it prints.
"""

import asyncio
import random
import sys
from typing import cast

_CHANCE = 0.5
_BUFFER_BYTES_MAX = 1 << 20


class _End(asyncio.Protocol):
    """One end of a connection, which passes what it reads to the other."""

    def __init__(self, ends: "set[_End]") -> None:
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.early = bytearray()
        self._ends = ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_BUFFER_BYTES_MAX)
        self._ends.add(self)

    def data_received(self, data: bytes) -> None:
        other = self.other.transport if self.other else None
        if other is None:
            self.early += data
        else:
            other.write(data)

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        self.transport = None
        if self.other and self.other.transport:
            self.other.transport.close()

    def cut(self) -> None:
        for end in (self, self.other):
            if end and end.transport:
                end.transport.abort()


class _Accepted(_End):
    """The end of who has connected; the other is dialled for it."""

    def __init__(self, ends: "set[_End]", port: int) -> None:
        super().__init__(ends)
        self._port = port
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dialling = asyncio.ensure_future(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, end = await loop.create_connection(lambda: _End(self._ends), "127.0.0.1", self._port)
        except OSError:
            self.cut()
            return
        if self.transport is None:
            end.cut()
            return
        end.other = self
        if self.early and end.transport:
            end.transport.write(self.early)
        self.other = end


async def forward(port: int, every_s: float) -> None:
    """Forward to *port* until this is cancelled, and cut connections every *every_s* seconds."""
    ends: set[_End] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Accepted(ends, port), "127.0.0.1", 0)
    host, listening, *_ = server.sockets[0].getsockname()
    print(f"listening on {host}:{listening}", flush=True)
    draw = random.Random(port)  # noqa: S311 - which connection is next is no secret
    while True:
        await asyncio.sleep(every_s)
        for end in list(ends):
            if isinstance(end, _Accepted) and draw.random() < _CHANCE:
                end.cut()


if __name__ == "__main__":
    asyncio.run(forward(int(sys.argv[1]), float(sys.argv[2])))
