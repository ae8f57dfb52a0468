"""Whole numbers: what a field that counts something may hold.

Invariant: what passes is encoded as an integer.  A float, a bool or a text that compares
like one is not, and whoever decodes it refuses the whole message for it.
"""


def check_whole(field: str, value: object, low: int, high: int) -> None:
    """Raise ValueError, naming *field*, unless *value* is a whole number from *low* to *high*."""
    # Its very type: no subclass of int has an encoding.
    if type(value) is not int:
        raise ValueError(f"{field} must be a whole number, {low} to {high}; got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{field} must be {low} to {high}; got {value}")
