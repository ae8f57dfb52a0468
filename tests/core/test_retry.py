"""Retries: waits that double, have a ceiling, and are spread by jitter."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from tq.core.retry import ATTEMPTS_MAX, BACKOFF_MS_MAX, RetryPolicy, backoff


def test_the_wait_doubles_up_to_the_ceiling() -> None:
    policy = RetryPolicy(backoff_ms=1_000, backoff_max_ms=5_000, jitter=0)

    assert [backoff(policy, attempts, 0.9) for attempts in (1, 2, 3, 4, 1_000)] == [1_000, 2_000, 4_000, 5_000, 5_000]


@given(st.integers(0, BACKOFF_MS_MAX), st.integers(1, ATTEMPTS_MAX), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_the_jitter_takes_its_share_and_no_more(backoff_ms: int, attempts: int, jitter: float, draw: float) -> None:
    policy = RetryPolicy(backoff_ms=backoff_ms, backoff_max_ms=BACKOFF_MS_MAX, jitter=jitter)
    full = min(backoff_ms * 2 ** (attempts - 1), BACKOFF_MS_MAX)

    wait = backoff(policy, attempts, draw)

    assert round(full * (1 - jitter)) <= wait <= full


def test_no_backoff_is_no_wait() -> None:
    assert backoff(RetryPolicy(backoff_ms=0), 5, 0.3) == 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_attempts": 0}, "max_attempts must be 1 to 1000; got 0"),
        ({"max_attempts": ATTEMPTS_MAX + 1}, "max_attempts"),
        ({"backoff_ms": -1}, "backoff_ms"),
        ({"backoff_ms": 600_001}, "at most backoff_max_ms"),
        ({"backoff_max_ms": BACKOFF_MS_MAX + 1}, "backoff"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": 1.1}, "jitter"),
        ({"max_attempts": 2.5}, "max_attempts must be a whole number, 1 to 1000; got 2.5"),
        ({"max_attempts": "5"}, "max_attempts must be a whole number.*got '5'"),
        ({"max_attempts": True}, "max_attempts must be a whole number.*got True"),
        ({"backoff_ms": 0.5}, "backoff_ms must be a whole number.*got 0.5"),
        ({"backoff_max_ms": 6e5}, "backoff_max_ms must be a whole number"),
        ({"jitter": "1"}, "jitter must be 0 to 1; got '1'"),
        ({"jitter": True}, "jitter must be 0 to 1; got True"),
        ({"jitter": float("nan")}, "jitter must be 0 to 1; got nan"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(fields: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RetryPolicy(**fields)  # type: ignore[arg-type]


def test_the_bounds_themselves_are_allowed() -> None:
    RetryPolicy(max_attempts=1, backoff_ms=0, backoff_max_ms=0, jitter=0)
    RetryPolicy(max_attempts=ATTEMPTS_MAX, backoff_ms=BACKOFF_MS_MAX, backoff_max_ms=BACKOFF_MS_MAX, jitter=1)


def test_a_policy_from_the_wire_is_checked_as_well() -> None:
    with pytest.raises(msgspec.ValidationError, match="max_attempts must be 1 to 1000"):
        msgspec.msgpack.decode(msgspec.msgpack.encode([0, 0, 0, 0.5]), type=RetryPolicy)
