"""Ids: increasing whatever the clock does, and of the shape that RFC 9562 gives a UUIDv7."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from tq.core.ids import ID_BYTES, IdMaker, compose, format_id, is_uuid7, made_at, parse_id
from tq.core.times import Timestamp

TAIL_MAX = (1 << 74) - 1


def lowest(count: int) -> bytes:
    return bytes(count)


def highest(count: int) -> bytes:
    return b"\xff" * count


@pytest.mark.parametrize("entropy", [lowest, highest])
def test_ids_of_one_millisecond_increase(entropy: Callable[[int], bytes]) -> None:
    maker = IdMaker(lambda: 1_000, entropy)

    ids = [maker.make() for _ in range(10_000)]

    assert all(one < two for one, two in pairwise(ids))
    assert {made_at(each) for each in ids} == {1_000}


@given(st.lists(st.integers(0, (1 << 48) - 2), min_size=2, max_size=50))
def test_ids_increase_whatever_the_clock_does(readings: list[int]) -> None:
    clock = iter(readings)
    maker = IdMaker(lambda: next(clock), highest)

    ids = [maker.make() for _ in readings]

    assert all(one < two for one, two in pairwise(ids))


def test_an_id_says_when_it_was_made_also_after_the_clock_stepped_back() -> None:
    clock = iter([5_000, 4_000, 6_000])
    maker = IdMaker(lambda: next(clock), lowest)

    assert [made_at(maker.make()) for _ in range(3)] == [5_000, 5_000, 6_000]


def test_a_millisecond_whose_numbers_are_used_up_runs_into_the_next() -> None:
    maker = IdMaker(lambda: 1_000, highest)
    first = maker.make()
    maker._tail = TAIL_MAX - 1

    second = maker.make()

    assert first < second
    assert (made_at(first), made_at(second)) == (1_000, 1_001)


@given(st.integers(0, (1 << 48) - 1), st.integers(0, TAIL_MAX))
def test_an_id_is_a_uuid_of_version_7_and_keeps_its_instant(at: int, tail: int) -> None:
    identifier = compose(Timestamp(at), tail)

    assert (UUID(bytes=identifier).version, UUID(bytes=identifier).variant) == (7, "specified in RFC 4122")
    assert is_uuid7(identifier)
    assert made_at(identifier) == at


@given(st.lists(st.tuples(st.integers(0, (1 << 48) - 1), st.integers(0, TAIL_MAX)), min_size=2))
def test_ids_sort_by_time_then_by_tail(parts: list[tuple[int, int]]) -> None:
    assert [compose(Timestamp(at), tail) for at, tail in sorted(parts)] == sorted(
        compose(Timestamp(at), tail) for at, tail in parts
    )


@pytest.mark.parametrize(
    "identifier",
    [b"", bytes(ID_BYTES), compose(Timestamp(1), 1)[:-1], compose(Timestamp(1), 1) + b"\0", UUID(int=4 << 76).bytes],
)
def test_other_bytes_are_no_uuid7(identifier: bytes) -> None:
    assert not is_uuid7(identifier)


def test_a_wrong_variant_is_no_uuid7() -> None:
    identifier = bytearray(compose(Timestamp(1), 1))
    identifier[8] &= 0x3F

    assert not is_uuid7(bytes(identifier))


def test_text_and_bytes_go_both_ways() -> None:
    identifier = compose(Timestamp(1_800_000_000_000), 12_345)

    text = format_id(identifier)

    assert parse_id(text) == parse_id(text.upper()) == parse_id(text.replace("-", "")) == identifier


@pytest.mark.parametrize("given", ["seven", b"seven", bytes(16), 7, None])
def test_what_is_no_uuid_is_refused_with_what_was_given(given: Any) -> None:
    with pytest.raises(ValueError, match=r"a task id is a UUID .* got ") as caught:
        parse_id(given)

    assert str(caught.value).endswith(f"got {given!r}")
