"""Frames: any cut of the stream gives the same frames; nothing but a violation comes out of garbage."""

import pytest
from hypothesis import given, strategies as st

from tq.core.errors import RemoteProtocolError
from tq.protocol.frames import (
    CORRELATION_MAX,
    HEADER,
    HEADER_BYTES,
    Frame,
    FrameReader,
    FrameTooLong,
    encode_frame,
)

frames = st.builds(Frame, st.integers(0, 255), st.integers(0, CORRELATION_MAX), st.binary(max_size=200))


def encoded(stream: list[Frame]) -> bytes:
    return b"".join(encode_frame(*frame) for frame in stream)


@given(stream=st.lists(frames, max_size=8), cuts=st.lists(st.integers(0, 2_000)))
def test_any_split_of_a_stream_yields_the_same_frames(stream: list[Frame], cuts: list[int]) -> None:
    wire = encoded(stream)
    ends = sorted({min(cut, len(wire)) for cut in cuts} | {len(wire)})
    reader = FrameReader()

    read: list[Frame] = []
    start = 0
    for end in ends:
        read += reader.feed(wire[start:end])
        start = end

    assert read == stream
    assert reader.pending_bytes == 0


@given(stream=st.lists(frames, max_size=4), last=frames, kept=st.floats(0, 1, exclude_max=True))
def test_a_truncated_frame_is_held_back(stream: list[Frame], last: Frame, kept: float) -> None:
    half = encode_frame(*last)[: int(kept * last.size)]
    reader = FrameReader()

    read = reader.feed(encoded(stream) + half)

    assert read == stream
    assert reader.pending_bytes == len(half)


@given(reads=st.lists(st.binary(max_size=100)))
def test_random_bytes_raise_nothing_but_a_violation(reads: list[bytes]) -> None:
    reader = FrameReader(body_bytes_max=1_000)

    try:
        for data in reads:
            reader.feed(data)
    except RemoteProtocolError:
        return

    assert reader.pending_bytes < HEADER_BYTES + 1_000


def test_a_frame_at_the_limit_is_read() -> None:
    reader = FrameReader(body_bytes_max=5)

    assert reader.feed(encode_frame(5, 1, b"abcde")) == [Frame(5, 1, b"abcde")]


def test_a_frame_over_the_limit_is_refused_from_its_header_alone() -> None:
    reader = FrameReader(body_bytes_max=5)

    with pytest.raises(FrameTooLong, match="a frame of 6 bytes; the limit is 5"):
        reader.feed(HEADER.pack(6, 5, 0, 1))


def test_unknown_flags_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="flags 0x80"):
        FrameReader().feed(HEADER.pack(0, 5, 0x80, 1))


def test_a_long_frame_in_short_reads_is_copied_once_and_not_at_each_read() -> None:
    class CountingBuffer(bytearray):
        """Counts how often all of it was copied out."""

        copies = 0

        def __bytes__(self) -> bytes:
            self.copies += 1
            return bytes(memoryview(self))

    reader = FrameReader()
    buffer = reader._buffer = CountingBuffer()
    body = bytes(1_000_000)
    wire = encode_frame(5, 1, body)

    read = [frame for start in range(0, len(wire), 1_000) for frame in reader.feed(wire[start : start + 1_000])]

    assert read == [Frame(5, 1, body)]
    # The header is looked at when it is complete, the frame when it is.
    assert buffer.copies <= 2


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bodies_are_bytes_whatever_the_read_was(kind: type[bytes | bytearray | memoryview]) -> None:
    [frame] = FrameReader().feed(kind(encode_frame(5, 1, b"abc")))

    assert type(frame.body) is bytes
    assert frame.size == HEADER_BYTES + 3
