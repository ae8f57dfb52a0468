"""The supervisor of worker processes: when the next one is due; tests/acceptance runs real ones."""

import logging
import time

import pytest

from tq.bin.supervising import FAILURES_OF_A_BURST_MAX, Seat, Supervisor


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


def supervisor(*, burst: bool) -> Supervisor:
    """Two seats, whose processes are said to have ended by the test."""
    return Supervisor(2, lambda number, orders: 0, burst=burst)


def test_a_burst_gives_a_seat_up_whose_processes_fail_in_a_row_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    burst = supervisor(burst=True)
    failing, other = burst._seats
    other.due_at = None
    failing.started_at = time.monotonic()
    due = []

    with caplog.at_level(logging.WARNING, logger="tq.worker"):
        for _ in range(FAILURES_OF_A_BURST_MAX):
            burst._ended(failing, 7, 1)
            due.append(failing.due_at is not None)
    burst._ended(other, 8, 0)

    assert due == [True, True, False]
    assert (burst._is_busy, burst._code) == (False, 1)
    assert "exit code 1; it was failure 3 in a row: no other is started in this burst" in caplog.text


def test_a_worker_without_an_end_gives_no_seat_up() -> None:
    lasting = supervisor(burst=False)
    seat = lasting._seats[0]
    seat.started_at = time.monotonic()

    for _ in range(20):
        lasting._ended(seat, 7, 1)

    assert seat.due_at is not None
    assert (lasting._is_busy, lasting._code) == (True, 0)
