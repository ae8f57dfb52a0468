"""Messages grow at their ends: what a newer peer adds is passed over, what an older one lacks has its default."""

import msgspec
import pytest

from tests.upgrade.wire import EXAMPLES, ID_1, RECORD
from tq.core.task import TaskRecord
from tq.engine.rows import decode_record, id_in
from tq.protocol.codec import decode_message
from tq.protocol.messages import MESSAGES, TYPE_OF, Row

# What no version has: the newer field may be of any kind.
ADDED = {"since": [2, None, b"\x00"]}


def named(example: msgspec.Struct) -> str:
    return type(example).__name__


def grown(thing: object) -> object:
    """Return *thing* as a peer sends it whose messages, and the rows in them, all have one field more."""
    if isinstance(thing, msgspec.Struct):
        fields = {field.encode_name: grown(getattr(thing, field.name)) for field in msgspec.structs.fields(thing)}
        return [*fields.values(), ADDED] if thing.__struct_config__.array_like else {**fields, "added": ADDED}
    if isinstance(thing, list | tuple):
        return [grown(each) for each in thing]
    return thing


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_message_with_more_fields_than_are_known_says_the_same(example: msgspec.Struct) -> None:
    body = msgspec.msgpack.encode(grown(example))

    assert decode_message(TYPE_OF[type(example)], body) == example


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_a_message_without_the_fields_that_have_defaults_is_one_with_the_defaults(example: msgspec.Struct) -> None:
    fields = msgspec.structs.fields(example)
    required = {field.encode_name: getattr(example, field.name) for field in fields if field.required}
    is_row = example.__struct_config__.array_like
    body = msgspec.msgpack.encode(list(required.values()) if is_row else required)

    assert decode_message(TYPE_OF[type(example)], body) == type(example)(**required)


def test_a_record_of_a_newer_peer_is_read_without_what_it_adds() -> None:
    record = msgspec.msgpack.encode(grown(RECORD))

    assert decode_record(record) == RECORD
    assert id_in(record) == RECORD.id


@pytest.mark.parametrize("row", MESSAGES.values(), ids=lambda row: row.kind.__name__)
def test_whatever_is_in_a_message_can_grow(row: Row) -> None:
    # A tuple is refused for one element more; a struct is not, unless it forbids it.
    info = msgspec.inspect.multi_type_info([row.kind])
    assert not [part for part in parts(info) if isinstance(part, msgspec.inspect.TupleType)]
    assert not [part for part in parts(info) if getattr(part, "forbid_unknown_fields", False)]


def parts(thing: object) -> list[object]:
    """Return *thing* and all that it is made of."""
    if isinstance(thing, tuple | list):
        return [part for each in thing for part in parts(each)]
    if isinstance(thing, msgspec.Struct):
        return [thing, *(part for name in thing.__struct_fields__ for part in parts(getattr(thing, name)))]
    return []


def test_a_record_of_a_later_version_is_read_and_its_id_is_where_it_was() -> None:
    kept = msgspec.msgpack.encode(grown(RECORD))

    assert decode_record(kept) == RECORD
    assert id_in(kept) == ID_1


def test_a_record_can_have_six_fields_more_before_its_id_moves() -> None:
    fields = [getattr(RECORD, name) for name in TaskRecord.__struct_fields__]

    assert id_in(msgspec.msgpack.encode([*fields, *[None] * 6])) == ID_1
    assert id_in(msgspec.msgpack.encode([*fields, *[None] * 7])) != ID_1
