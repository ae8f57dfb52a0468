"""Seats: what is left of them while handlers that were given up still run."""

from tests.worker.pools.ends import running
from tests.worker.scripted import registry
from tq.worker.executor import Executor
from tq.worker.pools.seats import Seats


def test_a_seat_is_kept_by_what_was_given_up_and_given_back_once() -> None:
    work = running(Executor(registry(work=lambda: 1), "w"), "work")
    work.run_by = runner = object()
    seats = Seats(2)

    seats.keep(work, "it cannot be ended")
    work.run_by = None
    kept = (seats.left, seats.stuck, seats.kept_by)
    gave_back = [seats.give_back(work), seats.give_back(work)]

    assert kept == (1, ["work"], [runner])
    assert gave_back == [True, False]
    assert (seats.left, seats.stuck, seats.kept_by) == (2, [], [])
