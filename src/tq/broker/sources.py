"""What the service takes from outside, so that a test can be the one to give it."""

from collections.abc import Callable

import msgspec


class Log(msgspec.Struct, frozen=True):
    """Where the service reports: each a function of an event and its values."""

    info: Callable[..., object]
    warning: Callable[..., object]
    error: Callable[..., object]


class Sources(msgspec.Struct, frozen=True):
    """Time, chance and the process.

    ``wall``: milliseconds since the epoch; ``monotonic``: seconds; ``draw``: a random
    number 0 <= n < 1; ``rss_bytes``: the memory of the process.
    """

    wall: Callable[[], int]
    monotonic: Callable[[], float]
    draw: Callable[[], float]
    rss_bytes: Callable[[], int]
