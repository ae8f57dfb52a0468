"""Retries: how often a failing task is tried, and how long it waits in between.

Exponential backoff with jitter, after "Exponential Backoff And Jitter" (Marc Brooker,
AWS Architecture Blog, 2015): the wait before attempt n+1 is drawn from the upper part
of ``backoff_ms * factor**(n-1)``, so that failures of one moment do not return as one.
"""

import msgspec

from tq.core.times import DurationMs
from tq.core.whole import check_whole

ATTEMPTS_MAX = 1_000
BACKOFF_MS_MAX = 7 * 24 * 3_600 * 1_000
_FACTOR = 2
_NUMBERS = (float, int)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The declared policy of a task.

    ``max_attempts`` counts all tries, the first included; 1 means no retry.
    The wait doubles from ``backoff_ms`` to at most ``backoff_max_ms``; ``jitter``
    (0 to 1) is the share of it that is drawn at random.

    Raises:
        ValueError: A field is out of its bounds, or of another type.
    """

    max_attempts: int = 5
    backoff_ms: int = 1_000
    backoff_max_ms: int = 600_000
    jitter: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        attempts, first, most = self.max_attempts, self.backoff_ms, self.backoff_max_ms
        # Policies are decoded often, and are right then: the calls are for those that are not.
        if type(attempts) is not int or not 1 <= attempts <= ATTEMPTS_MAX:
            check_whole("max_attempts", attempts, 1, ATTEMPTS_MAX)
        if not (type(first) is type(most) is int and 0 <= first <= most <= BACKOFF_MS_MAX):
            check_whole("backoff_ms", first, 0, BACKOFF_MS_MAX)
            check_whole("backoff_max_ms", most, 0, BACKOFF_MS_MAX)
            raise ValueError(f"backoff_ms must be at most backoff_max_ms; got {first} and {most}")
        if type(self.jitter) not in _NUMBERS or not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be 0 to 1; got {self.jitter!r}")


def backoff(policy: RetryPolicy, attempts: int, draw: float) -> DurationMs:
    """Return the wait after the *attempts*-th failed attempt.

    *draw* is a random number, 0 <= draw < 1; with jitter 0 it changes nothing.
    """
    # 2**62 is beyond any bound above: the exponent is capped to keep the power small.
    full = min(policy.backoff_ms * _FACTOR ** min(attempts - 1, 62), policy.backoff_max_ms)
    return DurationMs(round(full * (1 - policy.jitter * draw)))
