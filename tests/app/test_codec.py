"""The codecs: what goes through unchanged, and what is refused with which words."""

import datetime
import enum
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, TypedDict

import msgspec
import pydantic
import pytest

from tq.app.codec import CODECS, Codec, NotDecodable, NotEncodable, codec_named, decode
from tq.core.errors import UsageError


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    y: int


@dataclass
class Line:
    start: Point
    name: str = ""


class Row(TypedDict):
    key: str
    value: int


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(alias="fullName")
    born: datetime.date
    photo: bytes = b""

    @pydantic.computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def initial(self) -> str:
        return self.name[0]


@pytest.fixture(params=sorted(CODECS))
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]


NOON = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)
PERSON = Person(fullName="Ada Lovelace", born=datetime.date(1815, 12, 10), photo=b"png")


@pytest.mark.parametrize(
    "kind, value",
    [
        (int, -(2**63)),
        (float, 0.1),
        (str, "naïve ☃"),
        (bytes, b"\x00\xff"),
        (bool | None, None),
        (datetime.datetime, NOON),
        (datetime.timedelta, datetime.timedelta(minutes=90)),
        (uuid.UUID, uuid.UUID("018f4e2c-0000-7000-8000-000000000000")),
        (Decimal, Decimal("0.10")),
        (Colour, Colour.RED),
        (set[int], {1, 2, 3}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, str], (1, "a")),
        (dict[int, list[float]], {1: [0.5]}),
        (Point, Point(1, 2)),
        (Line, Line(Point(1, 2), "edge")),
        (list[Row], [{"key": "a", "value": 1}]),
        (Person, PERSON),
        (list[Person | None], [PERSON, None]),
        (object, {"a": [1, "b", None]}),
        (dict[str, object], {"a": 1}),
    ],
)
def test_a_value_arrives_as_its_annotation_has_it(codec: Codec, kind: Any, value: object) -> None:
    decoder = codec.decoder(kind)

    arrived = decode(decoder, codec.encode(value))

    assert arrived == value
    assert type(arrived) is type(value)


def test_without_an_annotation_plain_data_arrives_as_plain_data(codec: Codec) -> None:
    value = {"numbers": [1, 2.5, None, True], "text": "a"}

    arrived = decode(codec.decoder(Any), codec.encode(value))

    assert arrived == value


class Opaque:
    """Something that no codec knows."""


class Grumpy(pydantic.BaseModel):
    @pydantic.model_serializer
    def refuse(self) -> dict[str, int]:
        raise LookupError("not today")


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value, complaint",
    [
        (Opaque(), "objects of type Opaque cannot be encoded"),
        ([{"deep": {1: Opaque()}}], "objects of type Opaque cannot be encoded"),
        ("\ud800", "surrogates not allowed"),
        (CYCLE, "contains itself"),
        (Grumpy(), "not today"),
    ],
)
def test_what_has_no_encoding_is_refused_in_words(codec: Codec, value: object, complaint: str) -> None:
    with pytest.raises(NotEncodable, match=complaint):
        codec.encode(value)


def test_messagepack_has_no_integer_beyond_64_bits() -> None:
    with pytest.raises(NotEncodable, match="can't serialize ints"):
        CODECS["msgpack"].encode(2**64)


@pytest.mark.parametrize(
    "kind, value, complaint, path",
    [
        (str, 3, "Expected str, got int", "$"),
        (list[Point], [{"x": 1, "y": "2"}], "Expected int, got str", "$[0].y"),
        (Person, {"fullName": "Ada", "born": "soon"}, "born: Input should be a valid date", "$"),
        (list[Person], [{"born": "1815-12-10"}], "fullName: Field required", "$[0]"),
        (Opaque, 1, "objects of type Opaque cannot be decoded", "$"),
    ],
)
def test_what_does_not_fit_the_annotation_is_refused_with_its_place(
    codec: Codec, kind: Any, value: object, complaint: str, path: str
) -> None:
    decoder = codec.decoder(kind)

    with pytest.raises(NotDecodable, match=complaint) as caught:
        decode(decoder, codec.encode(value))

    assert caught.value.path == path


@dataclass
class Touchy:
    x: int

    def __post_init__(self) -> None:
        raise LookupError("no")


def test_an_exception_of_the_values_own_class_is_a_refusal_too(codec: Codec) -> None:
    decoder = codec.decoder(Touchy)

    with pytest.raises(NotDecodable, match="no"):
        decode(decoder, codec.encode({"x": 1}))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xa2\xff\xff", b"[1", b"\x91" * 5_000, b"[" * 5_000])
def test_malformed_bytes_are_refused_whatever_is_wrong_with_them(codec: Codec, data: bytes) -> None:
    decoder = codec.decoder(list[str])

    with pytest.raises(NotDecodable):
        decode(decoder, data)


@pytest.mark.parametrize("kind", [NoReturn, None])
def test_a_function_that_returns_nothing_has_a_decoder(codec: Codec, kind: Any) -> None:
    decoder = codec.decoder(kind)

    assert decode(decoder, codec.encode(None)) is None


def test_an_annotation_that_no_bytes_can_fit_is_a_type_error(codec: Codec) -> None:
    with pytest.raises(TypeError):
        codec.decoder(Point | Row)


def test_an_unknown_codec_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="one of msgpack, json; got 'pickle'"):
        codec_named("pickle")


class Measured(pydantic.BaseModel):
    value: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_refuses_a_number_that_is_not_finite_wherever_it_is(number: float) -> None:
    values: list[object] = [number, (("a", [number]), {}), {"a": {"b": number}}, {number}, Measured(value=number)]
    for value in values:
        with pytest.raises(NotEncodable, match=r"float that is not finite \(nan, inf\)"):
            CODECS["json"].encode(value)


def test_a_number_that_is_not_finite_travels_as_msgpack() -> None:
    codec = CODECS["msgpack"]

    assert decode(codec.decoder(float), codec.encode(float("-inf"))) == float("-inf")


@pytest.mark.parametrize("value", [None, "null", [1.5, None], {"null": 1.5}, [msgspec.Raw(b"null")]])
def test_json_takes_null_where_it_is_meant(value: object) -> None:
    assert b"null" in CODECS["json"].encode(value)
