"""Identifiers: UUIDs of version 7, sixteen bytes, ordered by the time they were made.

Invariant: ids made by one `IdMaker` strictly increase, also within one millisecond
and when its clock steps back.  Source: RFC 9562, section 5.7 and method 1 of 6.2.
"""

import struct
from collections.abc import Callable
from typing import NewType
from uuid import UUID

from tq.core.times import Timestamp

TaskId = NewType("TaskId", bytes)
"""Sixteen bytes, made by the client that enqueues the task."""

FrameId = NewType("FrameId", bytes)
"""Sixteen bytes, made by the client for each enqueue frame and kept over resends."""

SessionId = NewType("SessionId", bytes)
"""Sixteen random bytes: one start of one worker process."""

ID_BYTES = 16
_TAIL_BITS = 74
_TAIL_MAX = (1 << _TAIL_BITS) - 1
# A step small enough to leave 2**42 ids in a millisecond, large enough not to be guessed.
_STEP_BYTES = 4
_LOW_MASK = (1 << 62) - 1
_HALVES = struct.Struct(">QQ")


class IdMaker:
    """Makes strictly increasing UUIDv7s.  Not thread-safe: give each thread its own.

    *clock* returns milliseconds since the epoch; *entropy(n)* returns n random bytes.
    """

    def __init__(self, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._entropy = entropy
        self._at = -1
        self._tail = 0

    def make(self) -> bytes:
        """Return the next id: 48 bits of time, then 74 bits that only ever grow within it."""
        at = self._clock()
        if at > self._at:
            self._at = at
            # The top bit starts clear, so that the steps of this millisecond cannot overflow it.
            self._tail = int.from_bytes(self._entropy(10), "big") >> 7
        else:
            self._tail += 1 + int.from_bytes(self._entropy(_STEP_BYTES), "big")
            if self._tail > _TAIL_MAX:
                self._at += 1
                self._tail = int.from_bytes(self._entropy(10), "big") >> 7
        return compose(Timestamp(self._at), self._tail)

    def make_many(self, count: int) -> list[bytes]:
        """Return the next *count* ids; a frame of them costs a fifth of what as many calls of `make` do."""
        if self._tail + (count << 8 * _STEP_BYTES) > _TAIL_MAX:
            return [self.make() for _ in range(count)]
        at = self._clock()
        entropy = self._entropy(10 + _STEP_BYTES * count)
        steps = struct.unpack_from(f">{count}I", entropy, 10)
        if at > self._at:
            self._at = at
            self._tail = int.from_bytes(entropy[:10], "big") >> 7
        tail, above, below = self._tail, self._at << 16 | 0x7 << 12, 0b10 << 62
        pack = _HALVES.pack
        ids = []
        for step in steps:
            tail += 1 + step
            ids.append(pack(above | tail >> 62, below | tail & _LOW_MASK))
        self._tail = tail
        return ids


def compose(at: Timestamp, tail: int) -> bytes:
    """Return the UUIDv7 of instant *at* with the 74 free bits *tail*."""
    high, low = tail >> 62, tail & ((1 << 62) - 1)
    return (at << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low).to_bytes(ID_BYTES, "big")


def made_at(identifier: bytes) -> Timestamp:
    """Return the instant written in a UUIDv7."""
    return Timestamp(int.from_bytes(identifier[:6], "big"))


def is_uuid7(identifier: bytes) -> bool:
    """Tell whether *identifier* is sixteen bytes of version 7 and the RFC's variant."""
    return len(identifier) == ID_BYTES and identifier[6] >> 4 == 0x7 and identifier[8] >> 6 == 0b10


def format_id(identifier: bytes) -> str:
    """Return the canonical text of an id: ``018f...-....-7...``; of bytes that are no id, a part in hexadecimal."""
    if len(identifier) != ID_BYTES:
        return f"{identifier[:ID_BYTES].hex()!r} ({len(identifier)} bytes)"
    return str(UUID(bytes=identifier))


def parse_id(text: str) -> TaskId:
    """Return the id written in *text* (canonical UUID text, any case, hyphens optional).

    Raises:
        ValueError: *text* is not a UUID, or no text.
    """
    try:
        return TaskId(UUID(text).bytes)
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"a task id is a UUID such as 018f4e2c-...; got {text!r}") from None
