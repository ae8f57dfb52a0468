"""Series of dials: how they wait, when they end, and what they say then."""

import pytest
from hypothesis import given, strategies as st

from tq.client.attempts import Attempts, as_loss, failures_after, spell_seconds
from tq.core.errors import (
    BrokerUnavailable,
    ConnectionLost,
    GoingAway,
    Overloaded,
    ProtocolViolation,
    RemoteProtocolError,
)


def no_jitter(count: int) -> bytes:
    return bytes(count)


def test_the_first_dial_does_not_wait_and_the_later_ones_wait_longer_and_longer() -> None:
    attempts = Attempts(0.0, 10.0, 0, no_jitter)

    waits = []
    for _ in range(5):
        waits.append(attempts.wait(0.0))
        attempts.failed("refused")

    assert waits == [0.0, 0.05, 0.1, 0.2, 0.4]


def test_after_failures_the_first_dial_waits_too() -> None:
    assert Attempts(0.0, 10.0, 3, no_jitter).wait(0.0) == 0.2


def test_jitter_comes_from_the_entropy() -> None:
    assert Attempts(0.0, 10.0, 1, lambda count: b"\xff" * count).wait(0.0) == pytest.approx(0.025)


@given(timeout_s=st.floats(0, 30), failures=st.integers(0, 10))
def test_a_series_ends_with_its_time_and_says_what_was_tried(timeout_s: float, failures: int) -> None:
    attempts, now, tries = Attempts(100.0, timeout_s, failures, no_jitter), 100.0, 0

    error = None
    while error is None:
        try:
            now += attempts.wait(now)
        except BrokerUnavailable as given_up:
            error = given_up
        else:
            tries += 1
            attempts.failed("127.0.0.1:1: Connection refused")

    assert now <= 100.0 + timeout_s
    counted = "1 try" if tries == 1 else f"{tries} tries"
    assert f"no broker within {round(timeout_s, 3):g} s, {counted}; " in str(error)
    assert "Connection refused" in str(error) or not tries


@pytest.mark.parametrize(("seconds", "text"), [(1.99998, "2 s"), (2.5, "2.5 s"), (0.05, "0.05 s"), (10, "10 s")])
def test_a_time_is_told_without_what_has_passed_of_it_meanwhile(seconds: float, text: str) -> None:
    assert spell_seconds(seconds) == text


@pytest.mark.parametrize(
    "failures, has_answered, is_going_away, after",
    [(0, True, False, 0), (3, True, False, 0), (0, False, False, 1), (3, False, False, 4), (3, True, True, 1)],
)
def test_a_connection_that_was_of_use_clears_the_failures_before_it(
    failures: int, has_answered: bool, is_going_away: bool, after: int
) -> None:
    assert failures_after(failures, has_answered=has_answered, is_going_away=is_going_away) == after


@pytest.mark.parametrize("error", [GoingAway("stopping"), Overloaded("too many connections")])
def test_a_dismissal_that_may_pass_is_a_lost_connection(error: GoingAway | Overloaded) -> None:
    loss = as_loss(error)

    assert isinstance(loss, ConnectionLost)
    assert str(error) in str(loss)


@pytest.mark.parametrize("error", [ProtocolViolation("our bug"), RemoteProtocolError("its bug")])
def test_a_dismissal_for_a_bug_is_that_error(error: ProtocolViolation | RemoteProtocolError) -> None:
    assert as_loss(error) is error


def test_who_says_what_to_do_in_a_whole_sentence_has_the_last_word() -> None:
    attempts = Attempts(0.0, 1.0, 0, no_jitter)
    attempts.wait(0.0)

    attempts.failed("the directory is another's: use another.")

    assert str(attempts.unavailable("1 s")).endswith("the last said: the directory is another's: use another.")
