"""The supervisor of worker processes: when the next one is due; tests/acceptance runs real ones."""

from tq.bin.supervising import Seat


def test_one_that_dies_again_and_again_is_replaced_ever_later() -> None:
    seat = Seat(1)

    waits = [seat.ended(float(now)) for now in range(7)]

    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert seat.due_at == 36


def test_one_that_had_lived_long_is_replaced_soon() -> None:
    seat = Seat(1)
    for _ in range(5):
        seat.ended(0.0)

    seat.started_at = 100.0

    assert seat.ended(130.0) == 1
