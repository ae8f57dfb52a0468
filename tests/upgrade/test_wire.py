"""The bytes of every message stay what they were: peers of other versions send and expect them."""

import json

import msgspec
import pytest

from tests.upgrade.wire import CORRELATION, EXAMPLES, GOLDEN
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MESSAGES, TYPE_OF

golden: dict[str, str] = json.loads(GOLDEN.read_text())


def named(example: msgspec.Struct) -> str:
    return type(example).__name__


def test_every_message_has_its_golden_bytes() -> None:
    assert [type(example) for example in EXAMPLES] == [row.kind for row in MESSAGES.values()]
    assert set(golden) == {named(example) for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_an_example_says_something_in_every_field(example: msgspec.Struct) -> None:
    silent = [
        field.name
        for field in msgspec.structs.fields(example)
        if not field.required and getattr(example, field.name) == field.default
    ]

    # What an error does not close is the ordinary case.
    assert [name for name in silent if name != "closes"] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_message_is_encoded_as_ever(example: msgspec.Struct) -> None:
    assert encode_message(example, CORRELATION).hex() == golden[named(example)]


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_message_is_decoded_as_ever(example: msgspec.Struct) -> None:
    [frame] = FrameReader().feed(bytes.fromhex(golden[named(example)]))

    assert (frame.kind, frame.correlation) == (TYPE_OF[type(example)], CORRELATION)
    assert decode_message(frame.kind, frame.body) == example
