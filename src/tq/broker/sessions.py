"""Sessions: the connections of a broker, each an `asyncio.Protocol` over the sans-IO connection.

A session only moves bytes: it keeps what has come until its turn, and writes what the
service lets out.  Backpressure is by bytes: a client whose requests wait beyond its share
is not read from, and one that does not read its answers gets no further turns.

Invariant: what a worker or keeper says is always read and served: heartbeats and settles are
small, bounded by what the worker holds, and must not wait behind anything but the share of
clients, tasks that it has not read for one.  Nothing waits in the inbox of a conversation that has ended.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

from tq.broker.pressure import Pressure
from tq.core.errors import BrokerError, Overloaded, RemoteProtocolError
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.frames import Frame
from tq.protocol.messages import Role

# A peer that leaves so much of what it asked for unread is taken for dead; a worker that does not read is
# given no tasks long before that.
OUTBOX_BYTES_MAX = 16 * 1024 * 1024
# A worker may have no more than this unread by the broker; only one that floods it gets there.
_URGENT_INBOX_BYTES_MAX = 64 * 1024 * 1024


class Host(Protocol):
    """The service, as a session sees it."""

    connection_bytes_max: int
    frame_bytes_max: int
    pressure: Pressure

    def opened(self, session: "Session") -> BrokerError | None:
        """*session* is connected; an error says that it may not stay."""
        ...

    def arrived(self, session: "Session") -> None:
        """*session* has frames to serve."""
        ...

    def reading(self, session: "Session", *, reads: bool) -> None:
        """*session*'s peer has stopped to read what is written, or reads again."""
        ...

    def closed(self, session: "Session") -> None:
        """*session* is gone: to be ended, now or once what it said last is served."""
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
        self.has_spoken = False
        # Of a frame that has come in part; counted like what waits in the inbox.
        self._partial_bytes = 0
        self._arrivals = 0
        self._arrivals_seen = -1
        self._leaving_seen = False
        self._reading_paused = False
        self._writing_paused = False

    @property
    def is_gone(self) -> bool:
        """Whether its connection is lost."""
        return self._transport is None

    @property
    def asks(self) -> bool:
        """Whether something of what it asked for is not served yet."""
        return bool(self.inbox) or self.unfinished is not None

    @property
    def may_speak(self) -> bool:
        """Whether it may be given a turn: a client that does not read its answers may not."""
        return not self._writing_paused or self.urgent or self.is_gone

    @property
    def urgent(self) -> bool:
        """Whether it goes before clients, but for their share of the batch, and is always read and served."""
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
        self._arrivals += 1
        try:
            frames = self.conn.receive(data)
        except RemoteProtocolError as violation:
            self.violation = violation
            self.void()
            self._host.arrived(self)
            return
        partial = self.conn.pending_bytes
        self._host.pressure.buffer(len(data))
        if frames:
            self.inbox.extend(frames)
            self.inbox_bytes += len(data) + self._partial_bytes - partial
        self._partial_bytes = partial
        self._hold_back()
        if frames:
            self._host.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the end to the host."""
        self._transport = None
        self._host.closed(self)

    def pause_writing(self) -> None:
        """The peer does not read: it gets no turns, or no tasks, until it does."""
        self._writing_paused = True
        self._host.reading(self, reads=False)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._writing_paused = False
        self._host.reading(self, reads=True)
        if self.inbox:
            self._host.arrived(self)

    # ------------------------------------------------------------------ for the service

    def take(self) -> Frame:
        """Return the next frame of the inbox."""
        frame = self.inbox.popleft()
        size = frame.size
        self.inbox_bytes -= size
        self._host.pressure.unbuffer(size)
        if self._reading_paused:
            self._read_again()
        return frame

    def void(self) -> None:
        """Drop what waits in the inbox: the conversation has ended."""
        self._host.pressure.unbuffer(self.inbox_bytes + self._partial_bytes)
        self.inbox_bytes = self._partial_bytes = 0
        self.inbox.clear()

    def end(self) -> None:
        """Note that all is over; call it once the connection is lost."""
        self.void()
        self.conn.ended()

    def dismiss(self, error: BrokerError) -> bytearray:
        """Return the bytes that end the conversation for a reason of the broker's; the inbox is void with it."""
        self.void()
        return self.conn.dismiss(error)

    def write(self, data: bytes | bytearray) -> None:
        """Write *data* if the peer is still there; one that has left too much unread is cut off."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self.has_spoken = True
        transport.write(data)
        if transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            transport.abort()

    def close(self) -> None:
        """Close once everything written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever has not gone out."""
        if self._transport is not None:
            self._transport.abort()

    def is_leaving_late(self) -> bool:
        """Whether it was to be closed already when this was asked last: its peer does not read the end."""
        leaving = self._transport is not None and self._transport.is_closing()
        was_leaving, self._leaving_seen = self._leaving_seen, leaving
        return leaving and was_leaving

    def is_stuck(self) -> bool:
        """Whether a frame has begun, and nothing of it has come since this was asked last though it was read for."""
        is_waiting = self._partial_bytes > 0 and not self._reading_paused and self._arrivals == self._arrivals_seen
        self._arrivals_seen = self._arrivals
        return is_waiting

    def _read_again(self) -> None:
        if self._transport is None or self._transport.is_closing() or not self._reading_paused:
            return
        if self.inbox_bytes > self._host.connection_bytes_max // 2:
            return
        if self._host.pressure.buffer_full:
            self._host.pressure.hold(self._read_again)
            return
        self._reading_paused = False
        self._transport.resume_reading()

    def _hold_back(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self.urgent:
            if self.inbox_bytes > _URGENT_INBOX_BYTES_MAX:
                transport.write(self.dismiss(Overloaded("a worker may not flood the broker")))
                transport.close()
            return
        over = self.inbox_bytes > self._host.connection_bytes_max
        if (over or self._host.pressure.buffer_full) and not self._reading_paused:
            self._reading_paused = True
            transport.pause_reading()
            if not over:
                self._host.pressure.hold(self._read_again)
