"""The waits between tries: doubling, bounded, jittered, and never past the deadline."""

from hypothesis import given, strategies as st

from tq.protocol.reconnect import WAIT_FIRST_S, WAIT_MAX_S, backoff, wait_before

draws = st.floats(0, 1, exclude_max=True)


def test_waits_double_from_50_ms_to_2_s() -> None:
    waits = [backoff(attempt, 0.0) for attempt in range(1, 9)]

    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


@given(attempt=st.integers(1, 10**9), draw=draws)
def test_jitter_takes_away_half_of_a_wait_at_most(attempt: int, draw: float) -> None:
    full = backoff(attempt, 0.0)

    assert full / 2 <= backoff(attempt, draw) <= full <= WAIT_MAX_S


def test_without_a_deadline_one_tries_for_ever() -> None:
    assert wait_before(10**6, 0.0, now=1e9, deadline=None) == WAIT_MAX_S


def test_at_the_deadline_one_gives_up() -> None:
    assert wait_before(1, 0.0, now=10.0, deadline=10.0) is None
    assert wait_before(1, 0.0, now=11.0, deadline=10.0) is None


@given(attempt=st.integers(1, 100), draw=draws, left=st.floats(0, 60))
def test_a_wait_leaves_time_for_the_try_after_it(attempt: int, draw: float, left: float) -> None:
    wait = wait_before(attempt, draw, now=100.0, deadline=100.0 + left)

    assert wait is None or 0 < wait <= min(left / 2, WAIT_MAX_S) + 1e-9


def test_tries_at_a_dead_address_end() -> None:
    now, tries = 0.0, 0
    while (wait := wait_before(tries + 1, 0.5, now, deadline=10.0)) is not None:
        now += wait
        tries += 1

    assert 10.0 - now <= WAIT_FIRST_S
    assert tries < 30
