"""Messages and bytes: every message survives the way; all else is a violation and nothing worse."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.upgrade.wire import EXAMPLES, FRAME_ID
from tq.core.errors import RemoteProtocolError
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import HEADER_BYTES, Frame, FrameReader
from tq.protocol.messages import TYPE_OF, Type

HUGE_ARRAY = b"\xdd\xff\xff\xff\xff"
HUGE_MAP = b"\xdf\xff\xff\xff\xff"
HUGE_BYTES = b"\xc6\xff\xff\xff\xff"
BYTES_16 = b"\xc4\x10" + FRAME_ID


def body_of(message: msgspec.Struct) -> bytes:
    return bytes(encode_message(message, 1)[HEADER_BYTES:])


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_way(message: msgspec.Struct) -> None:
    [frame] = FrameReader().feed(encode_message(message, 7))

    assert frame == Frame(TYPE_OF[type(message)], 7, frame.body)
    assert decode_message(frame.kind, frame.body) == message


def test_fields_that_a_later_version_appends_are_skipped() -> None:
    later = msgspec.msgpack.encode(["reason", "a field of version 9", [1, 2]])

    assert decode_message(Type.GOING_AWAY, later) == decode_message(Type.GOING_AWAY, msgspec.msgpack.encode(["reason"]))


@pytest.mark.parametrize(
    "kind, body",
    [
        (Type.PING, b""),
        (Type.PING, b"\x92"),
        (Type.PING, b"\x80"),
        (Type.PING, b"\xc1"),
        (Type.PING, b"\x90\x90"),
        (Type.PING, b"\x91" * 100_000),
        (Type.PING, b"\x91" + HUGE_MAP),
        (Type.GET, HUGE_ARRAY),
        (Type.GET, b"\x91" + HUGE_ARRAY),
        (Type.GET, b"\x91\x91" + HUGE_BYTES),
        (Type.GET, b"\x91\x91\xa3abc"),
        (Type.STATS, HUGE_MAP),
        (Type.STATS, b"\x81\x91\x01\x01"),
        (Type.GOING_AWAY, b"\x91\xa2\xff\xff"),
        (Type.ENQUEUE, b"\x93" + BYTES_16 + HUGE_ARRAY),
        (Type.ENQUEUE, msgspec.msgpack.encode([FRAME_ID, [["n", "q", 1, 1, 1, [0]]], []])),
        (Type.ENQUEUE, msgspec.msgpack.encode([FRAME_ID, [["n", "q", 1, 1, 1, [1, 1, 0]]], []])),
        (Type.WINDOW, msgspec.msgpack.encode([1.5, 1])),
        (Type.WINDOW, msgspec.msgpack.encode([float("inf"), 1])),
        (Type.DELIVER, b"\x93\x01\xc2\x91" + b"\x91" * 100_000),
        (Type.HELLO, msgspec.msgpack.encode([b"tq", 1, "emperor"])),
        (0, b"\x90"),
        (200, b"\x90"),
    ],
)
def test_what_cannot_be_decoded_is_a_violation(kind: int, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(kind, body)


def test_a_violation_names_the_message_and_the_place() -> None:
    with pytest.raises(RemoteProtocolError, match=r"Enqueue cannot be decoded: max_attempts must be 1 to 1000; got 0"):
        decode_message(Type.ENQUEUE, msgspec.msgpack.encode([FRAME_ID, [["n", "q", 1, 1, 1, [0]]], []]))


@pytest.mark.parametrize("kind", [Type.CONTROL_QUEUE, Type.CONTROL_DEAD])
def test_a_violation_does_not_repeat_all_that_was_sent(kind: Type) -> None:
    body = msgspec.msgpack.encode(["x" * 500_000, "x" * 500_000])

    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(kind, body)

    assert len(str(caught.value)) < 400


@given(kind=st.integers(0, 255), body=st.binary(max_size=300))
def test_random_bytes_are_a_message_or_a_violation(kind: int, body: bytes) -> None:
    try:
        decode_message(kind, body)
    except RemoteProtocolError:
        return


@given(message=st.sampled_from(EXAMPLES), places=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255))))
def test_a_damaged_message_is_a_message_or_a_violation(message: msgspec.Struct, places: list[tuple[int, int]]) -> None:
    body = bytearray(body_of(message))
    for place, value in places:
        body[place % len(body)] = value

    try:
        decode_message(TYPE_OF[type(message)], bytes(body))
    except RemoteProtocolError:
        return
