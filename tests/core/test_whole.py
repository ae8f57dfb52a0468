"""Whole numbers: what counts, and what only looks like it."""

from enum import IntEnum

import pytest

from tq.core.whole import check_whole


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize("value", [0, 1, 9])
def test_a_whole_number_within_the_bounds_passes(value: int) -> None:
    check_whole("count", value, 0, 9)


@pytest.mark.parametrize("value", [-1, 10, 2**70])
def test_one_out_of_bounds_is_refused_with_them(value: int) -> None:
    with pytest.raises(ValueError, match=f"count must be 0 to 9; got {value}"):
        check_whole("count", value, 0, 9)


@pytest.mark.parametrize("value", [1.0, 2.5, True, "5", None, Number.ONE, float("nan")])
def test_what_is_no_whole_number_is_refused_even_if_it_compares_like_one(value: object) -> None:
    with pytest.raises(ValueError, match="count must be a whole number, 0 to 9; got"):
        check_whole("count", value, 0, 9)
