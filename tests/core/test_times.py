"""Times: seconds as people write them, milliseconds as the product counts them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tq.core.times import DAY, HOUR, MINUTE, SECOND, milliseconds


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (1, 1_000), (0.0004, 0), (0.0016, 2), (1.5, 1_500)])
def test_seconds_become_whole_milliseconds(seconds: float, expected: int) -> None:
    assert milliseconds(seconds) == expected


@pytest.mark.parametrize("seconds", [-0.001, float("inf"), float("nan"), "5", None, timedelta(5), Decimal("nan")])
def test_a_duration_is_a_finite_number_and_not_negative(seconds: Any) -> None:
    with pytest.raises(ValueError, match="finite number of seconds"):
        milliseconds(seconds)


def test_the_units_are_multiples_of_each_other() -> None:
    assert (SECOND, MINUTE, HOUR, DAY) == (1_000, 60_000, 3_600_000, 86_400_000)
