"""Codecs: values to bytes and back, as MessagePack or JSON, and never anything that runs code.

What msgspec knows travels by its rules (https://jcristharif.com/msgspec/supported-types.html):
numbers, text, bytes, dates, UUID, Decimal, enums, sets, dataclasses, Structs, TypedDicts
and the like.  Pydantic models travel as pydantic dumps them, and are validated by
pydantic where an annotation names them.

Invariant: `CODECS` has one codec for each name in `tq.core.task.CODECS`; a library's
exception leaves this module only as `NotEncodable` or `NotDecodable`.
"""

import sys
from collections.abc import Callable
from math import isfinite
from typing import Any, Literal, NamedTuple, Never, NoReturn

import msgspec

from tq.core.errors import UsageError
from tq.core.task import CODECS as NAMES

# Whatever such a function was annotated to return, it does not.
_NEVER_RETURNS = (Never, NoReturn)


class NotEncodable(Exception):
    """A value has no encoding; the text says which type, or what else is wrong with it."""


class NotDecodable(Exception):
    """Bytes are not a value of the wanted type.

    ``path`` leads to the place inside the value: ``$`` is the value, ``$[2].x`` a part of it.
    """

    def __init__(self, text: str, path: str = "$") -> None:
        super().__init__(text)
        self.path = path


class Codec(NamedTuple):
    """One encoding.

    ``empty_kwargs`` is how a call without keyword arguments ends.  It may also end so by
    chance: a hint, not a proof.
    """

    name: str
    encoder: Callable[[Any], bytes]
    decoder_of: Callable[[Any], Callable[[bytes], Any]]
    empty_kwargs: bytes

    def encode(self, value: Any) -> bytes:
        """Return *value* as bytes.

        Raises:
            NotEncodable: It has no encoding.
        """
        try:
            return self.encoder(value)
        except RecursionError:
            raise NotEncodable("a value that contains itself, or is nested too deep") from None
        except Exception as error:
            # An encoder runs code of the value's own class (a pydantic serializer, a property).
            raise NotEncodable(_unquoted(str(error)) or type(error).__name__) from error

    def decoder(self, kind: Any) -> Callable[[bytes], Any]:
        """Return a function from bytes to a value of the annotation *kind*: call it by `decode`.

        Raises:
            TypeError: *kind* cannot be decoded, whatever the bytes.
        """
        return self.decoder_of(Any if kind in _NEVER_RETURNS else kind)


def decode(decoder: Callable[[bytes], Any], data: bytes) -> Any:
    """Return what *decoder* (from `Codec.decoder`) makes of *data*.

    Raises:
        NotDecodable: *data* is not a value of the decoder's type.
    """
    try:
        return decoder(data)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        raise NotDecodable(_unquoted(text), path.rstrip("`") or "$") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotDecodable(f"malformed bytes ({error})") from error
    except Exception as error:
        # A decoder runs code of the value's own class (a validator, a __post_init__).
        raise NotDecodable(str(error) or type(error).__name__) from error


def codec_named(name: str) -> Codec:
    """Return the codec *name*.

    Raises:
        UsageError: There is none of that name.
    """
    try:
        return CODECS[name]
    except KeyError:
        raise UsageError(f"a codec is one of {', '.join(CODECS)}; got {name!r}") from None


def _unquoted(text: str) -> str:
    """Return a message of msgspec's without its Markdown."""
    return text.replace("`", "")


def _is_pydantic_model(kind: Any) -> bool:
    # Whoever has a model has imported pydantic.
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _encode_hook(mode: Literal["python", "json"]) -> Callable[[Any], Any]:
    def to_plain(value: Any) -> Any:
        if _is_pydantic_model(type(value)):
            # By alias and for a round trip: what validation expects, without computed fields.
            return value.model_dump(mode=mode, by_alias=True, round_trip=True)
        raise NotImplementedError(f"objects of type {type(value).__qualname__} cannot be encoded")

    return to_plain


def _encode_json(value: Any) -> bytes:
    """Return *value* as JSON, which has no word for a number that is not finite: msgspec would write null."""
    data = _JSON_ENCODER.encode(value)
    if b"null" in data and _holds_non_finite(value):
        raise ValueError("JSON has no word for a float that is not finite (nan, inf)")
    return data


def _holds_non_finite(value: Any) -> bool:
    # A Raw is JSON that somebody else has written.
    pending = [msgspec.to_builtins(value, builtin_types=[msgspec.Raw], str_keys=True, enc_hook=_PLAIN_JSON)]
    while pending:
        match pending.pop():
            case float() as number if not isfinite(number):
                return True
            case dict() as mapping:
                pending += mapping.values()
            case list() | tuple() as items:
                pending += items
            case _:
                pass
    return False


def _from_plain(kind: Any, value: Any) -> Any:
    if kind is object:
        return value
    if _is_pydantic_model(kind):
        try:
            return kind.model_validate(value)
        except ValueError as error:
            raise ValueError(_first_complaint(error)) from error
    raise NotImplementedError(f"objects of type {getattr(kind, '__qualname__', kind)} cannot be decoded")


def _first_complaint(error: ValueError) -> str:
    """Return the first of pydantic's complaints on one line: it would print all, over many lines."""
    complaint = error.errors()[0]  # type: ignore[attr-defined]  # a pydantic.ValidationError
    where = ".".join(str(part) for part in complaint["loc"])
    return f"{where}: {complaint['msg']}" if where else str(complaint["msg"])


# Pydantic's own JSON rules: msgspec would write bytes as base64, which pydantic reads as text.
_PLAIN_JSON = _encode_hook("json")
_JSON_ENCODER = msgspec.json.Encoder(enc_hook=_PLAIN_JSON)

CODECS: dict[str, Codec] = {
    "msgpack": Codec(
        "msgpack",
        msgspec.msgpack.Encoder(enc_hook=_encode_hook("python")).encode,
        lambda kind: msgspec.msgpack.Decoder(kind, dec_hook=_from_plain).decode,
        b"\x80",
    ),
    "json": Codec(
        "json",
        _encode_json,
        lambda kind: msgspec.json.Decoder(kind, dec_hook=_from_plain).decode,
        b"{}]",
    ),
}
assert tuple(CODECS) == NAMES
