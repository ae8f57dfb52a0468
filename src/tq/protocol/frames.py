"""Frames: a header of ten bytes, then the body.

    length of the body  u32 | message number  u8 | flags  u8 | correlation id  u32     (big-endian)

Flags are 0 in this version; a receiver refuses others.  Invariant: a `FrameReader` holds
at most one incomplete frame, and refuses a too long one from its header alone.
"""

import struct
from typing import NamedTuple

from tq.core.errors import RemoteProtocolError
from tq.core.limits import FRAME_BYTES_MAX

HEADER = struct.Struct(">IBBI")
HEADER_BYTES = HEADER.size
CORRELATION_MAX = 0xFFFF_FFFF


class Frame(NamedTuple):
    """One frame: its message number, correlation id and encoded body."""

    kind: int
    correlation: int
    body: bytes

    @property
    def size(self) -> int:
        """How many bytes it took on the wire."""
        return HEADER_BYTES + len(self.body)


class FrameTooLong(RemoteProtocolError):
    """A header announced more than this side reads."""


def encode_frame(kind: int, correlation: int, body: bytes) -> bytes:
    """Return the frame as bytes; the caller keeps the body within the peer's limit."""
    return HEADER.pack(len(body), kind, 0, correlation) + body


class FrameReader:
    """Cuts a stream of bytes into frames.

    ``body_bytes_max`` bounds the body of one frame.
    """

    def __init__(self, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self._buffer = bytearray()
        # How long the buffer must be before it is worth a look: without it, a long frame
        # that arrives in small reads would be copied at each of them.
        self._wanted = HEADER_BYTES

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Return the frames that *data* completes, in order.

        Whole frames in *data* that precede a broken one are lost with the connection:
        a peer that breaks the rules is promised nothing.

        Raises:
            FrameTooLong: A header announces a body over the limit.
            RemoteProtocolError: A header has flags that this version does not know.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        elif not isinstance(data, bytes):
            data = bytes(data)
        frames: list[Frame] = []
        start, end = 0, len(data)
        self._wanted = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            length, kind, flags, correlation = HEADER.unpack_from(data, start)
            if length > self.body_bytes_max:
                raise FrameTooLong(f"a frame of {length} bytes; the limit is {self.body_bytes_max}")
            if flags:
                raise RemoteProtocolError(f"frame flags {flags:#04x}; this version knows none")
            after = start + HEADER_BYTES + length
            if after > end:
                self._wanted = after - start
                break
            frames.append(Frame(kind, correlation, data[start + HEADER_BYTES : after]))
            start = after
        if start < end:
            self._buffer += data[start:]
        return frames

    @property
    def pending_bytes(self) -> int:
        """How much of an incomplete frame is held."""
        return len(self._buffer)
