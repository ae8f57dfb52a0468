"""When a lost connection is tried again, and until when: arithmetic, without a clock.

The waits double, so that an absent broker is not pestered, and are drawn at random from
their upper half, so that the peers of a restarted one do not all come at once.  Source:
"Exponential Backoff And Jitter" (Marc Brooker, AWS Architecture Blog, 2015).
"""

WAIT_FIRST_S = 0.05
WAIT_MAX_S = 2.0
_JITTER = 0.5


def backoff(attempt: int, draw: float) -> float:
    """Return the seconds to wait after the *attempt*-th failure in a row, counted from 1.

    *draw* is a random number, 0 <= draw < 1.
    """
    # 2**16 is far beyond the bound: the exponent is capped to keep the power small.
    full = min(WAIT_FIRST_S * (1 << min(attempt - 1, 16)), WAIT_MAX_S)
    return full * (1 - _JITTER * draw)


def wait_before(attempt: int, draw: float, now: float, deadline: float | None) -> float | None:
    """Return the seconds to wait before the next try, or None to give up.

    A wait that would pass the deadline is cut, so that the last try comes just before it.
    """
    wait = backoff(attempt, draw)
    if deadline is None:
        return wait
    left = deadline - now
    if left <= 0:
        return None
    # The last try gets some of what is left of the time.
    return min(wait, left / 2) if left > WAIT_FIRST_S else None
