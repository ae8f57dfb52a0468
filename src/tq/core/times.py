"""Instants and durations, both in whole milliseconds.

Invariant: every instant in the product counts milliseconds since the Unix epoch
(UTC), so that a stored instant means the same on any machine and after a restart.
"""

from typing import NewType

Timestamp = NewType("Timestamp", int)
"""An instant: milliseconds since 1970-01-01T00:00:00Z."""

DurationMs = NewType("DurationMs", int)
"""A length of time in milliseconds; never negative."""

SECOND = DurationMs(1_000)
MINUTE = DurationMs(60 * SECOND)
HOUR = DurationMs(60 * MINUTE)
DAY = DurationMs(24 * HOUR)


def milliseconds(seconds: float) -> DurationMs:
    """Return *seconds* as whole milliseconds, rounded to the nearest.

    Raises:
        ValueError: *seconds* is negative, infinite or not a number.
    """
    try:
        is_duration = 0 <= seconds < float("inf")
    except (ArithmeticError, TypeError):  # text, a timedelta, a Decimal that is no number
        is_duration = False
    if not is_duration:
        raise ValueError(f"a duration must be a finite number of seconds, zero or more; got {seconds!r}")
    return DurationMs(round(seconds * 1_000))
