"""One simulated connection: two transports, and between them two lanes of bytes on their way.

    write -> Transport's buffer -> Lane (so many bytes at most) -> data_received
             beyond the high mark:  pieces of chance length and delay, in order;
             pause_writing          held while the receiver does not read or the hosts are parted

Invariant: what is received is a prefix of what was written; all of it, if the connection
is closed in good order. A protocol hears `connection_made` first, `connection_lost` last and
once, or not at all after the crash of its host.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

# asyncio's own marks.
_HIGH_BYTES = 64 * 1024


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What a network is like."""

    latency_s: tuple[float, float] = (0.000_05, 0.000_2)
    """The least and the longest time of a piece on its way."""
    piece_bytes_max: int = 256 * 1024
    """What is written arrives in pieces of one byte up to this; what arrives together may be joined."""
    window_bytes: int = 256 * 1024
    """How much is on its way at a time; the rest waits in the sender's buffer."""


class _Ending(Enum):
    EOF = "eof"
    RESET = "reset"


class Lane:
    """The bytes on their way from one transport to the other, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random, conditions: Conditions) -> None:
        self._loop = loop
        self._chance = chance
        self._conditions = conditions
        self._flying: deque[tuple[float, bytes | _Ending]] = deque()
        self._flying_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_held = False
        self._is_cut = False
        self._receiver: SimulatedTransport
        self._sender: SimulatedTransport

    def join(self, sender: "SimulatedTransport", receiver: "SimulatedTransport") -> None:
        """Say whose bytes these are, and for whom."""
        self._sender, self._receiver = sender, receiver

    @property
    def room(self) -> int:
        """How many bytes it takes now."""
        return max(0, self._conditions.window_bytes - self._flying_bytes)

    def send(self, data: bytes) -> None:
        """Let *data* fly, in pieces."""
        start = 0
        while start < len(data):
            size = self._chance.randint(1, self._conditions.piece_bytes_max)
            self._launch(data[start : start + size])
            start += size

    def finish(self) -> None:
        """Let the end of the bytes fly after them."""
        self._launch(_Ending.EOF)

    def reset(self) -> None:
        """Cut the lane, and let an abrupt end arrive after the bytes that are left."""
        if not self._is_cut:
            self._lose_some()
            self._launch(_Ending.RESET)
            self._is_cut = True

    def cut(self) -> None:
        """Lose what was sent last, from nothing to all that is on its way, and all that is sent from now on."""
        if not self._is_cut:
            self._lose_some()
            self._is_cut = True

    def _lose_some(self) -> None:
        for _ in range(self._chance.randint(0, len(self._flying))):
            _, piece = self._flying.pop()
            if isinstance(piece, bytes):
                self._flying_bytes -= len(piece)

    def hold(self) -> None:
        """Let nothing arrive until `release`: the hosts cannot reach each other."""
        self._is_held = True

    def release(self) -> None:
        """Let it arrive: what is due does so soon."""
        self._is_held = False
        self.wake()

    def wake(self) -> None:
        """Look again whether something can arrive."""
        if self._timer is None and self._flying and not self._is_held:
            self._timer = self._loop.call_at(self._flying[0][0], self._arrive)

    def _launch(self, piece: bytes | _Ending) -> None:
        if self._is_cut:
            return
        arrives_at = self._loop.time() + self._chance.uniform(*self._conditions.latency_s)
        # In order, as TCP has it: one that comes sooner than those before it waits for them.
        self._flying.append((arrives_at, piece))
        if isinstance(piece, bytes):
            self._flying_bytes += len(piece)
        self.wake()

    def _arrive(self) -> None:
        self._timer = None
        if self._is_held or not self._flying:
            return
        if not self._receiver.takes_data:
            # An abrupt end does not wait for a reader; what is before it is lost with it.
            if any(piece is _Ending.RESET for _, piece in self._flying):
                self._flying.clear()
                self._flying_bytes = 0
                self._receiver.lose(ConnectionResetError("the connection was reset by its other end"))
            return
        arrived = self._take()
        if isinstance(arrived, bytes):
            self._receiver.hear(arrived)
            self._sender.has_room()
        elif arrived is _Ending.EOF:
            self._receiver.hear_end()
        else:
            self._receiver.lose(ConnectionResetError("the connection was reset by its other end"))
        self.wake()

    def _take(self) -> bytes | _Ending:
        """Take the first piece, and perhaps some of those that are there by now as well."""
        now = self._loop.time()
        _, first = self._flying.popleft()
        if not isinstance(first, bytes):
            return first
        pieces = [first]
        while self._flying and self._flying[0][0] <= now and self._chance.random() < 0.5:
            _, piece = self._flying[0]
            if not isinstance(piece, bytes):
                break
            self._flying.popleft()
            pieces.append(piece)
        joined = b"".join(pieces)
        self._flying_bytes -= len(joined)
        return joined


class SimulatedTransport(asyncio.Transport):
    """One end of a connection, as asyncio's protocols know it.

    *extra* answers `get_extra_info`. The methods below the line are for the lanes and the network.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outward: Lane, extra: dict[str, Any]) -> None:
        super().__init__(extra)
        self._loop = loop
        self._outward = outward
        self._inward: Lane
        self._protocol: asyncio.Protocol | None = None
        self._buffer = bytearray()
        self._low, self._high = _HIGH_BYTES // 4, _HIGH_BYTES
        self._is_reading = False
        self._is_closing = False
        self.is_lost = False
        self._wants_end = False
        self._has_sent_end = False
        self._has_paused_protocol = False

    # What a protocol calls ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, a copy of it; after `close` or the loss of the connection it goes nowhere."""
        if self._is_closing or self._wants_end:
            return
        self._buffer += data
        self._flush()
        if len(self._buffer) > self._high and not self._has_paused_protocol and self._protocol is not None:
            self._has_paused_protocol = True
            self._call(self._protocol.pause_writing)

    def can_write_eof(self) -> bool:
        """Return true: one side may end before the other."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more will be written; reading goes on."""
        if not self._is_closing:
            self._wants_end = True
            self._flush()

    def close(self) -> None:
        """Stop reading, send what is written, then end."""
        if self._is_closing:
            return
        self._is_closing = True
        # What still comes in is not read, and must not hold up the other end.
        self._inward.wake()
        self._flush()

    def abort(self) -> None:
        """End at once; what is written and on its way may be lost."""
        if not self.is_lost:
            self._outward.reset()
            self.lose(None)

    def is_closing(self) -> bool:
        """Tell whether it is closed, or closing."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Let the bytes wait on their way."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Take bytes again."""
        if not self._is_closing:
            self._is_reading = True
            self._inward.wake()

    def is_reading(self) -> bool:
        """Tell whether bytes are taken."""
        return self._is_reading and not self._is_closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol is paused and resumed; defaults as in asyncio."""
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        if not 0 <= self._low <= self._high:
            raise ValueError(f"the low mark must be within 0 and the high one {self._high}; got {self._low}")

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and the high mark."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how much was written that is not even on its way."""
        return len(self._buffer)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol have what comes from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return whose connection it is."""
        assert self._protocol is not None
        return self._protocol

    # What the lanes and the network call -------------------------------------------------------------------------

    def join(self, inward: Lane) -> None:
        """Say where the other end's bytes come from."""
        self._inward = inward

    @property
    def takes_data(self) -> bool:
        """Whether a piece may arrive: it is read, or thrown away because nobody will."""
        return self._is_reading or self._is_closing

    def open(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to *protocol*, which hears of it and then of what came."""
        self._protocol = protocol
        self._call(protocol.connection_made, self)
        if not self._is_closing:
            self._is_reading = True
            self._inward.wake()

    def hear(self, data: bytes) -> None:
        """Take a piece that has arrived."""
        if not self._is_closing and self._protocol is not None:
            self._call(self._protocol.data_received, data)

    def hear_end(self) -> None:
        """Take the end of the other side's bytes."""
        if self._is_closing or self._protocol is None:
            return
        if not self._call(self._protocol.eof_received):
            self.close()

    def has_room(self) -> None:
        """Go on sending: the lane has room again."""
        if not self.is_lost:
            self._flush()

    def lose(self, error: Exception | None) -> None:
        """End here and now: the protocol hears `connection_lost` in the loop's next turn."""
        if self.is_lost:
            return
        self.is_lost = self._is_closing = True
        self._buffer.clear()
        self._inward.wake()
        if self._protocol is not None:
            self._loop.call_soon(self._say_lost, error)

    def vanish(self) -> None:
        """End without a word to the protocol, whose host is no more; the other end is reset."""
        if not self.is_lost:
            self._outward.reset()
        self.is_lost = self._is_closing = True
        self._protocol = None
        self._inward.wake()

    def _flush(self) -> None:
        if self._buffer and (room := self._outward.room):
            self._outward.send(bytes(self._buffer[:room]))
            del self._buffer[:room]
        if self._has_paused_protocol and len(self._buffer) <= self._low and self._protocol is not None:
            self._has_paused_protocol = False
            self._call(self._protocol.resume_writing)
        if self._buffer or self.is_lost:
            return
        if (self._is_closing or self._wants_end) and not self._has_sent_end:
            self._has_sent_end = True
            self._outward.finish()
        if self._is_closing:
            self.lose(None)

    def _say_lost(self, error: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def _call(self, callback: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401 - whatever the protocol returns
        """Call the protocol; a bug of its own ends the connection, as in asyncio, and is reported."""
        try:
            return callback(*args)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a callback
            self._loop.call_exception_handler(
                {"message": f"{callback.__qualname__} failed", "exception": error, "transport": self}
            )
            if not self.is_lost:
                self._outward.reset()
                self.lose(error)
            return None
