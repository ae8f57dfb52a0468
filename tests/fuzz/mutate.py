"""Frames as no honest peer sends them, made from the golden examples of every message.

    mutator = Mutator(random.Random(seed))
    mutator.frame(Type.ENQUEUE, 7)      # whole, or harmed in its header, its values or its bytes

Values are harmed where they stand in the message's tree, so that what comes out is read far into
the code behind the decoder; bytes are harmed wherever they are, so that much is not read at all.
"""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.upgrade.wire import EXAMPLES, ID_1, ID_2, SESSION
from tq.core.limits import FRAME_BYTES_MAX
from tq.protocol.frames import CORRELATION_MAX, HEADER
from tq.protocol.messages import TYPE_OF, Type

EXAMPLE_OF: dict[Type, msgspec.Struct] = {TYPE_OF[type(example)]: example for example in EXAMPLES}
_BODIES = {number: msgspec.msgpack.encode(example) for number, example in EXAMPLE_OF.items()}
_TREES = {number: msgspec.msgpack.decode(body) for number, body in _BODIES.items()}
_ENCODE = msgspec.msgpack.Encoder().encode

_NUMBERS = [0, 1, -1, 2, 7, 127, 128, 255, 256, 1_000, 1_001, 65_536, 1 << 31, 1 << 32, 1 << 40, (1 << 40) + 1]
_LIMITS = [(1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 31), 1_700_000_000_000]
_FLOATS = [0.0, -0.0, 0.5, 1e308, float("inf"), float("-inf"), float("nan")]
_TEXTS = ["", "\0", "default", "mail", "mail.send", "ready", "é\U0001f4a9", "{x}", "x" * 300, "x" * 70_000, "*", "json"]
_BYTES = [b"", b"\0" * 16, b"\xff" * 16, b"x" * 15, b"x" * 17, ID_1, ID_2, SESSION, b"\x92\x90\x80", b"x" * 300_000]
_SHAPES: list[Any] = [
    None,
    True,
    False,
    [],
    [[]],
    {},
    {1: 2},
    {"a": None},
    msgspec.msgpack.Ext(5, b"x"),
    [None] * 1_001,
]
_VALUES: list[list[Any]] = [_NUMBERS, _LIMITS, _FLOATS, _TEXTS, _BYTES, _SHAPES]

# Promises of more than follows, tags that nobody uses, nesting that nobody reads.
_SNIPPETS = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x05", b"\xdc\xff\xff", b"\xc1", b"\xd6\xff\0\0\0\0", b"\xa2\xff\xfe", b"\x91" * 100,
    b"\x91" * 5_000, b"\x81\xc0" * 2_000, b"\xc0" * 3_000, b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7),
]  # fmt: skip
_LENGTHS = [0, 1, 9, 10, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 1 << 31, 0xFFFF_FFFF]


class Mutator:
    """Makes frames by the dice of *draw*.

    ``harm`` is the share of frames that are harmed: with less of it a connection lives longer.
    ``values`` are put in beside the usual ones, such as tokens that live.
    """

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.harm = 0.5
        self.values: Sequence[Any] = ()

    def frame(self, number: Type, correlation: int, tree: Any = None) -> bytes:
        """Return a frame of *number*, harmed or not; *tree* are its values, if not the example's."""
        draw = self.draw.random()
        if draw > self.harm:
            body = _BODIES[number] if tree is None else _ENCODE(tree)
            return HEADER.pack(len(body), number, 0, correlation) + body
        if draw < self.harm * 0.75:
            body = _ENCODE(self.changed(_TREES[number] if tree is None else tree))
        else:
            body = self.harmed(_BODIES[number] if tree is None else _ENCODE(tree))
        if self.draw.random() < 0.06:
            return self._misheaded(number, correlation, body)
        return HEADER.pack(len(body), number, 0, correlation) + body

    def changed(self, node: Any) -> Any:
        """Return *node* with one value in it changed, left out, doubled, or put in."""
        draw = self.draw
        if isinstance(node, list) and node and draw.random() < 0.9:
            copy = list(node)
            index = draw.randrange(len(copy))
            match draw.randrange(12):
                case 0:
                    del copy[index]
                case 1:
                    copy.insert(index, self.value())
                case 2:
                    copy *= draw.choice([2, 3, 1_100])
                case _:
                    copy[index] = self.changed(copy[index])
            return copy
        if isinstance(node, dict) and node and draw.random() < 0.9:
            key = draw.choice(list(node))
            return {**node, key: self.changed(node[key])}
        return self.value()

    def value(self) -> Any:
        """Return a value that fits seldom."""
        if self.values and self.draw.random() < 0.3:
            return self.draw.choice(self.values)
        return self.draw.choice(self.draw.choice(_VALUES))

    def harmed(self, body: bytes) -> bytes:
        """Return *body* with some of its bytes flipped, cut out or put in."""
        draw = self.draw
        harmed = bytearray(body or b"\x90")
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            at = draw.randrange(len(harmed) + 1)
            match draw.randrange(6):
                case 0:
                    del harmed[at:]
                case 1:
                    del harmed[at : at + draw.randrange(1, 9)]
                case 2:
                    harmed[at:at] = draw.choice(_SNIPPETS)
                case 3:
                    harmed[at:at] = draw.randbytes(draw.randrange(1, 20))
                case 4:
                    harmed[at : at + 1] = bytes([draw.randrange(256)])
                case _ if at < len(harmed):
                    harmed[at] ^= 1 << draw.randrange(8)
        return bytes(harmed)

    def _misheaded(self, number: int, correlation: int, body: bytes) -> bytes:
        draw = self.draw
        length, flags = len(body), 0
        match draw.randrange(5):
            case 0:
                length = draw.choice([*_LENGTHS, length + 1, max(length - 1, 0)])
            case 1:
                number = draw.randrange(256)
            case 2:
                flags = 1 << draw.randrange(8)
            case 3:
                correlation = draw.choice([0, 1, 2, CORRELATION_MAX])
            case _:
                return draw.randbytes(draw.randrange(1, 40))
        return HEADER.pack(length, number, flags, correlation) + body

    def cut(self, stream: bytes) -> list[bytes]:
        """Return *stream* as reads bring it: whole, in pieces, or (where it is short) byte by byte."""
        how = self.draw.random()
        if how < 0.5:
            return [stream]
        if how > 0.98 and len(stream) <= 4_096:
            return [stream[at : at + 1] for at in range(len(stream))]
        cuts = sorted(self.draw.randrange(len(stream) + 1) for _ in range(self.draw.randrange(1, 8)))
        return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
