"""Calls: what is checked before it is sent, and how the fault is told."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from tq.app.calls import CallCodec, signature_of
from tq.app.codec import CODECS
from tq.core.errors import InvalidArguments, NotSerializable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction


@dataclass
class Address:
    street: str
    number: int


def send(to: str, body: str = "", *, cc: list[str] | None = None) -> str:
    return to


def plain(a: int, b: str) -> None: ...
def with_defaults(a: int, b: list[int] = [1]) -> None: ...  # noqa: B006  # how Python passes it is the test
def positional_only(a: int, /, b: int) -> None: ...
def keyword_required(*, a: int) -> None: ...
def variadic(first: int, *rest: int, key: str = "", **more: float) -> None: ...
def untyped(a, b=2, *c): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN201
def structured(address: Address, counts: dict[str, int]) -> Address:
    return address


def unresolved(x: Fraction) -> None: ...


def impossible(x: Address | InOtherWords) -> None: ...


class InOtherWords(msgspec.Struct):
    x: int


def codec_of(function: Callable[..., Any], codec: str = "msgpack") -> CallCodec:
    return CallCodec(signature_of("mail.send", function), CODECS[codec])


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize(
    "function, args, kwargs",
    [
        (plain, (1, "x"), {}),
        (plain, (1,), {"b": "x"}),
        (plain, (), {"b": "x", "a": 1}),
        (positional_only, (1, 2), {}),
        (positional_only, (1,), {"b": 2}),
        (keyword_required, (), {"a": 1}),
        (variadic, (1,), {}),
        (variadic, (1, 2, 3), {"key": "k", "x": 0.5}),
        (untyped, (1,), {}),
        (untyped, (1, "b", [None], {"c": 1.5}), {}),
        (structured, (Address("High St", 1), {"a": 1}), {}),
        (structured, (Address("High St", 1),), {"counts": {}}),
        (send, ("a@b.c",), {"cc": ["d@e.f"]}),
    ],
)
def test_a_call_arrives_as_it_was_written(
    codec: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    calls = codec_of(function, codec)

    arrived = calls.decode(calls.encode(args, kwargs))

    assert arrived == (args, kwargs)


def test_a_default_is_filled_in_by_the_one_who_runs_the_task() -> None:
    calls = codec_of(with_defaults)
    payload = calls.encode((1,), {})

    args, _ = calls.decode(payload)

    assert msgspec.msgpack.decode(payload) == [[1], {}]
    assert args[1] is with_defaults.__defaults__[0]  # type: ignore[index]


@pytest.mark.parametrize(
    "function, args, kwargs, complaint",
    [
        (send, ("a@b.c", 3), {}, r"argument 'body' \(str\): expected str, got int"),
        (send, ("a@b.c",), {"body": 3}, r"argument 'body' \(str\): expected str, got int"),
        (send, ("a@b.c",), {"cc": ["x", None]}, r"argument 'cc' .*: expected str, got None at cc\[1\]"),
        (send, (), {}, r"missing a required argument: 'to'; its signature is \(to: str,"),
        (send, ("a", "b", "c"), {}, "too many positional arguments"),
        (send, ("a",), {"to": "b"}, "multiple values for argument 'to'"),
        (send, ("a",), {"bcc": "b"}, "got an unexpected keyword argument 'bcc'"),
        (keyword_required, (), {}, "missing a required argument: 'a'"),
        (positional_only, (), {"a": 1, "b": 2}, "'a' parameter is positional only"),
        (variadic, (1, 2, "3"), {}, r"argument 'rest\[1\]' \(int\): expected int, got str"),
        (variadic, (1,), {"x": "y"}, r"argument 'x' \(float\): expected float, got str"),
        (structured, (Address("x", "1"), {}), {}, r"\(Address\): expected int, got str at address.number"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_named(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str
) -> None:
    calls = codec_of(function)

    with pytest.raises(InvalidArguments, match="task 'mail.send': .*" + complaint):
        calls.encode(args, kwargs)


@pytest.mark.parametrize(
    "args, kwargs, complaint",
    [
        (("a", {1: object()}), {}, "argument 'body', of type dict, .*objects of type object"),
        (("a",), {"cc": [object()]}, "argument 'cc', of type list, .*objects of type object"),
        (("a", "b", "c", object()), {}, "argument 'number 4', of type object"),
    ],
)
def test_an_argument_without_an_encoding_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], complaint: str
) -> None:
    def three(to: str, body: str = "", *cc: str) -> None: ...

    calls = codec_of(three)

    with pytest.raises(NotSerializable, match="task 'mail.send': " + complaint):
        calls.encode(args, kwargs)


@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\x80", b"\x90", b"\x92\x90\x90", b"\x92\x80\x80", b"\xff" * 9])
def test_a_payload_that_is_no_call_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidArguments, match=r"task 'mail.send': (its payload is not \[args, kwargs\]|missing)"):
        codec_of(plain).decode(payload)


def test_a_call_that_ends_like_one_without_keywords_by_chance_is_still_read() -> None:
    def count(*, a: int = 0, b: int) -> None: ...

    calls = codec_of(count)
    payload = calls.encode((), {"b": -128})

    assert payload.endswith(b"\x80")
    assert calls.decode(payload) == ((), {"b": -128})


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_like, max_size=4), st.dictionaries(st.text(max_size=4), json_like, max_size=3))
def test_plain_data_arrives_unchanged_in_any_call(args: list[Any], kwargs: dict[str, Any]) -> None:
    def anything(*args: Any, **kwargs: Any) -> None: ...

    calls = codec_of(anything)

    assert calls.decode(calls.encode(tuple(args), kwargs)) == (tuple(args), kwargs)


@given(st.binary(max_size=40))
def test_random_bytes_are_a_call_or_a_refusal(payload: bytes) -> None:
    calls = codec_of(plain)

    try:
        args, kwargs = calls.decode(payload)
    except InvalidArguments:
        return

    plain(*args, **kwargs)


def test_a_result_arrives_as_the_return_annotation_has_it() -> None:
    calls = codec_of(structured)

    arrived = calls.decode_result(calls.encode_result(Address("High St", 1)))

    assert arrived == Address("High St", 1)


def test_a_result_that_the_annotation_does_not_allow_is_the_handlers_fault() -> None:
    calls = codec_of(structured)
    result = calls.encode_result({"street": "High St"})

    with pytest.raises(UsageError, match=r"task 'mail.send' returned .* Address .*missing required field number"):
        calls.decode_result(result)


def test_a_result_without_an_encoding_is_named() -> None:
    with pytest.raises(NotSerializable, match=r"task 'mail.send': its result, of type object"):
        codec_of(plain).encode_result(object())


def test_an_annotation_that_exists_only_for_type_checkers_is_refused_with_advice() -> None:
    with pytest.raises(UsageError, match=r"name 'Fraction' is not defined.*TYPE_CHECKING"):
        signature_of("mail.send", unresolved)


def test_an_annotation_that_cannot_be_decoded_is_refused_with_the_parameter() -> None:
    with pytest.raises(UsageError, match=r"parameter 'x' is annotated .*InOtherWords"):
        codec_of(impossible)


def test_a_plain_call_takes_the_short_way() -> None:
    calls = codec_of(send)
    payload = calls.encode(("a@b.c", "hi"), {})

    def refuse(data: bytes) -> Any:
        raise AssertionError("decoded argument by argument")

    calls._split = refuse

    assert calls.decode(payload) == (("a@b.c", "hi"), {})


def log_in(user: str, password: int, *more: int, **others: int) -> None: ...


@pytest.mark.parametrize(
    "args, kwargs, shown",
    [
        (("a", "hunter2"), {}, "argument 'password' (int)"),
        (("a", 1, 2, "hunter2"), {}, "argument 'more[1]' (int)"),
        (("a", 1), {"pin": "hunter2"}, "argument 'pin' (int)"),
        (("a", {"hunter2": 1}), {}, "argument 'password' (int)"),
        (("a", object()), {}, "argument 'password', of type object"),
    ],
)
def test_no_text_shows_what_is_redacted(args: tuple[object, ...], kwargs: dict[str, object], shown: str) -> None:
    calls = CallCodec(signature_of("login", log_in, frozenset({"password", "more", "pin"})), CODECS["msgpack"])

    with pytest.raises((InvalidArguments, NotSerializable)) as caught:
        calls.encode(args, kwargs)

    text = "".join(traceback.format_exception(caught.value))
    assert shown in text
    assert "withheld" in text
    assert "hunter2" not in text


class Pin(Enum):
    RIGHT = "1234"


def unlock(pin: Pin, door: Pin) -> None: ...


@pytest.mark.parametrize("wrong", ["9999"])  # not in the body: a traceback shows the lines of this file
def test_what_a_library_quotes_is_told_of_what_is_not_redacted_only(wrong: str) -> None:
    calls = CallCodec(signature_of("unlock", unlock, frozenset({"pin"})), CODECS["json"])

    with pytest.raises(InvalidArguments) as redacted:
        calls.encode((wrong, "1234"), {})
    with pytest.raises(InvalidArguments, match=f"invalid enum value '{wrong}'"):
        calls.encode(("1234", wrong), {})

    assert wrong not in "".join(traceback.format_exception(redacted.value))
