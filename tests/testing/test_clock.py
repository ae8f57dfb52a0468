"""Clocks that move when they are told."""

import pytest

from tq.testing.clock import ManualClock, SkewedClock


def test_time_passes_when_it_is_told_to() -> None:
    clock = ManualClock(wall_ms=1_000)

    clock.advance(0.25)
    clock.advance(0.25)

    assert clock.wall() == 1_500
    assert clock.monotonic() == 0.5


def test_the_wall_jumps_either_way_and_no_time_passes() -> None:
    clock = ManualClock(wall_ms=1_000)

    clock.jump(-600)
    clock.jump(100)

    assert clock.wall() == 500
    assert clock.monotonic() == 0


def test_time_does_not_go_back() -> None:
    with pytest.raises(AssertionError, match="-1"):
        ManualClock().advance(-1)


def test_another_machine_has_the_same_time_and_a_wall_of_its_own() -> None:
    clock = ManualClock(wall_ms=1_000)
    other = SkewedClock(clock, skew_ms=50)

    clock.advance(1)
    other.jump(-2_000)

    assert other.monotonic() == clock.monotonic() == 1
    assert clock.wall() == 2_000
    assert other.wall() == 50
