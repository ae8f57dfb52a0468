"""The bytes of every message stay what they were: peers of other versions send and expect them."""

import json

import msgspec
import pytest

from tests.upgrade.wire import CORRELATION, EXAMPLES, GOLDEN, GOLDEN_GROWN, GROWN, ROWS_GROWN
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MESSAGES, TYPE_OF

golden: dict[str, str] = json.loads(GOLDEN.read_text())
golden_grown: dict[str, str] = json.loads(GOLDEN_GROWN.read_text())


def named(example: msgspec.Struct) -> str:
    return type(example).__name__


def test_every_message_has_its_golden_bytes() -> None:
    assert [type(example) for example in EXAMPLES] == [row.kind for row in MESSAGES.values()]
    assert set(golden) == {named(example) for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_an_example_says_something_in_every_field(example: msgspec.Struct) -> None:
    fields = msgspec.structs.fields(example)
    added = MESSAGES[TYPE_OF[type(example)]].added
    silent = [
        field.name
        for field in fields[: len(fields) - added]
        if not field.required and getattr(example, field.name) == field.default
    ]

    # What an error does not close is the ordinary case.
    assert [name for name in silent if name != "closes"] == []


@pytest.mark.parametrize("example", [each for each in EXAMPLES if named(each) not in ROWS_GROWN], ids=named)
def test_a_message_is_encoded_as_ever(example: msgspec.Struct) -> None:
    assert encode_message(example, CORRELATION).hex() == golden[named(example)]


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_message_is_decoded_as_ever(example: msgspec.Struct) -> None:
    [frame] = FrameReader().feed(bytes.fromhex(golden[named(example)]))

    assert (frame.kind, frame.correlation) == (TYPE_OF[type(example)], CORRELATION)
    assert decode_message(frame.kind, frame.body) == example


def test_every_field_that_was_added_has_its_golden_bytes() -> None:
    added = {row.kind: row.added for row in MESSAGES.values() if row.added}

    assert [type(example) for example in GROWN] == list(added)
    assert set(golden_grown) == {named(example) for example in GROWN}
    for example in GROWN:
        for field in msgspec.structs.fields(example)[-added[type(example)] :]:
            assert getattr(example, field.name) != field.default


@pytest.mark.parametrize("example", GROWN, ids=named)
def test_a_message_that_has_grown_is_encoded_and_decoded_as_ever(example: msgspec.Struct) -> None:
    data = bytes.fromhex(golden_grown[named(example)])
    [frame] = FrameReader().feed(data)

    assert encode_message(example, CORRELATION) == data
    assert decode_message(frame.kind, frame.body) == example
