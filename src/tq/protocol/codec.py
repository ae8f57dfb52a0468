"""Messages to bytes and back, with one encoder and one decoder for each kind, made once.

Invariant: whatever the bytes, `decode_message` returns a whole message or raises
`RemoteProtocolError`, and nothing else.
"""

import msgspec

from tq.core.errors import RemoteProtocolError
from tq.protocol.frames import HEADER, HEADER_BYTES
from tq.protocol.messages import MESSAGES, TYPE_OF

_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[int, msgspec.msgpack.Decoder[msgspec.Struct]] = {
    number: msgspec.msgpack.Decoder(row.kind) for number, row in MESSAGES.items()
}
# The decoder quotes values that it refuses, however long they are; the text goes into a log, and into a frame.
_REASON_CHARACTERS_MAX = 300


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


# Of the messages that have grown: the defaults of what was added at their ends.
_ADDED: dict[type[msgspec.Struct], list[object]] = {
    row.kind: [_default(field) for field in msgspec.structs.fields(row.kind)[-row.added :]]
    for row in MESSAGES.values()
    if row.added
}


def encode_message(message: msgspec.Struct, correlation: int) -> bytearray:
    """Return the whole frame of *message*.

    The body is encoded behind the room left for its header: joining the two afterwards
    copies it, which costs more than encoding for a frame of many tasks.  Fields that a
    message did not have when it was first released are left out where they say nothing:
    then its bytes are those that an older peer has always been sent.

    Raises:
        KeyError: *message* is no message of the wire: a bug of the caller.
    """
    frame = bytearray(HEADER_BYTES)
    _ENCODER.encode_into(_without_silent(message) if type(message) in _ADDED else message, frame, HEADER_BYTES)
    HEADER.pack_into(frame, 0, len(frame) - HEADER_BYTES, TYPE_OF[type(message)], 0, correlation)
    return frame


def decode_message(kind: int, body: bytes) -> msgspec.Struct:
    """Return the message with number *kind* that *body* encodes.

    Raises:
        RemoteProtocolError: No message has this number, or *body* does not encode it.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise RemoteProtocolError(f"message number {kind} is unknown")
    try:
        return decoder.decode(body)
    # ValueError covers malformed MessagePack, a wrong shape, what `__post_init__` of a value refuses,
    # and text that is not UTF-8; RecursionError is nesting, also in fields that are skipped.
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if len(reason) > _REASON_CHARACTERS_MAX:
            reason = f"{reason[:_REASON_CHARACTERS_MAX]}..."
        raise RemoteProtocolError(f"{MESSAGES[kind].kind.__name__} cannot be decoded: {reason}") from None  # type: ignore[index]


def _without_silent(message: msgspec.Struct) -> list[object]:
    values = [getattr(message, name) for name in message.__struct_fields__]
    for default in reversed(_ADDED[type(message)]):
        if values[-1] != default:
            break
        values.pop()
    return values
