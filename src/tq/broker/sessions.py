"""Sessions: the connections of a broker, each an `asyncio.Protocol` over the sans-IO connection.

A session only moves bytes: it keeps what has come until its turn, and writes what the
service lets out.  Backpressure is by bytes: a client whose requests wait beyond its share
is not read from, and one that does not read its answers gets no further turns.

Invariant: a worker's or keeper's session is never paused: heartbeats and settles are
small, bounded by what the worker holds, and must not wait behind anything.  Nothing waits in
the inbox of a conversation that has ended.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

from tq.core.errors import BrokerError, Overloaded, RemoteProtocolError
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.frames import Frame
from tq.protocol.messages import Role

# A client that leaves so much of what it asked for unread is taken for dead.
OUTBOX_BYTES_MAX = 16 * 1024 * 1024
# A worker may have no more than this unread by the broker; only one that floods it gets there.
_URGENT_INBOX_BYTES_MAX = 64 * 1024 * 1024


class Host(Protocol):
    """The service, as a session sees it."""

    connection_bytes_max: int
    frame_bytes_max: int

    def opened(self, session: "Session") -> BrokerError | None:
        """*session* is connected; an error says that it may not stay."""
        ...

    def arrived(self, session: "Session") -> None:
        """*session* has frames to serve."""
        ...

    def closed(self, session: "Session") -> None:
        """*session* is gone."""
        ...

    def may_buffer(self, count: int) -> bool:
        """Count *count* more (or less) bytes of waiting requests; tells whether clients may send on."""
        ...


class Session(asyncio.Protocol):
    """One connection.  ``number`` names it in this run; ``worker`` is the worker session it speaks for."""

    def __init__(self, host: Host, number: int) -> None:
        self.number = number
        self.conn = ServerConnection(host.frame_bytes_max)
        self.inbox: deque[Frame] = deque()
        self.queued = False
        self.worker: bytes | None = None
        self.violation: RemoteProtocolError | None = None
        # What the batch being built had no more room for.
        self.unfinished: Request | None = None
        self._host = host
        self._transport: asyncio.Transport | None = None
        self.inbox_bytes = 0
        self._reading_paused = False
        self.writing_paused = False

    @property
    def urgent(self) -> bool:
        """Whether it goes before clients and is never made to wait."""
        return self.conn.role is Role.WORKER or self.conn.role is Role.KEEPER

    @property
    def peer(self) -> str:
        """Who it is, for the log."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        role = self.conn.role.value if self.conn.role else "unknown"
        return f"{role} {name[0]}:{name[1]}" if isinstance(name, tuple) else role

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports have the interface, but not the base class.
        self._transport = transport = cast(asyncio.Transport, transport)
        error = self._host.opened(self)
        if error is not None:
            transport.write(self.dismiss(error))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames and ask for a turn."""
        try:
            frames = self.conn.receive(data)
        except RemoteProtocolError as violation:
            self.violation = violation
            self.void()
            self._host.arrived(self)
            return
        if frames:
            size = sum(frame.size for frame in frames)
            self.inbox.extend(frames)
            self.inbox_bytes += size
            self._hold_back(may_buffer=self._host.may_buffer(size))
            self._host.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, once the host has looked at what came last."""
        self._transport = None
        self._host.closed(self)
        if self.unfinished is None:  # else the host goes on with what came last
            self.void()
            self.conn.ended()

    def pause_writing(self) -> None:
        """The peer does not read: it gets no turns until it does."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.writing_paused = False
        if self.inbox:
            self._host.arrived(self)

    # ------------------------------------------------------------------ for the service

    def take(self) -> Frame:
        """Return the next frame of the inbox."""
        frame = self.inbox.popleft()
        self.inbox_bytes -= frame.size
        self._host.may_buffer(-frame.size)
        if self._reading_paused and self.inbox_bytes <= self._host.connection_bytes_max // 2:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return frame

    def void(self) -> None:
        """Drop what waits in the inbox: the conversation has ended."""
        self._host.may_buffer(-self.inbox_bytes)
        self.inbox_bytes = 0
        self.inbox.clear()

    def dismiss(self, error: BrokerError) -> bytearray:
        """Return the bytes that end the conversation for a reason of the broker's; the inbox is void with it."""
        self.void()
        return self.conn.dismiss(error)

    def write(self, data: bytes | bytearray) -> None:
        """Write *data* if the peer is still there; one that has left too much unread is cut off."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            transport.abort()

    def close(self) -> None:
        """Close once everything written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def _hold_back(self, *, may_buffer: bool) -> None:
        transport = self._transport
        if transport is None:
            return
        if self.urgent:
            if self.inbox_bytes > _URGENT_INBOX_BYTES_MAX:
                transport.write(self.dismiss(Overloaded("a worker may not flood the broker")))
                transport.close()
            return
        over = self.inbox_bytes > self._host.connection_bytes_max
        # With the broker's whole buffer used, a client may still have the one request that is under way.
        if (over or (not may_buffer and self.inbox_bytes)) and not self._reading_paused:
            self._reading_paused = True
            transport.pause_reading()
