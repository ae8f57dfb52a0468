"""When a process that has died is replaced: its start costs, and what killed it may still be there.

Invariant: the wait doubles with each failure in a row, up to its bound.
"""

FIRST_S = 1.0
"""The wait after the first failure, in seconds."""

MAX_S = 30.0
"""The longest wait, in seconds."""


def wait_after(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, 1 or more."""
    # The exponent is capped to keep the power small; the bound is reached long before.
    wait_s: float = min(FIRST_S * 2 ** min(failures - 1, 16), MAX_S)
    return wait_s
