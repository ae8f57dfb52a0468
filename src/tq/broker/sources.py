"""What the service takes from outside, so that a test can be the one to give it."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_STATM = Path("/proc/self/statm")


class Log(msgspec.Struct, frozen=True):
    """Where the service reports: each a function of an event and its values."""

    info: Callable[..., object]
    warning: Callable[..., object]
    error: Callable[..., object]


class Sources(msgspec.Struct, frozen=True):
    """Time, chance and the process.

    ``wall``: milliseconds since the epoch; ``monotonic``: seconds; ``draw``: a random
    number 0 <= n < 1; ``rss_bytes``: the memory of the process, 0
    where it is not known.
    """

    wall: Callable[[], int]
    monotonic: Callable[[], float]
    draw: Callable[[], float]
    rss_bytes: Callable[[], int]


def real_sources() -> Sources:
    """Return the clocks of the system, its chance, and the memory of this process."""
    return Sources(_wall_clock_ms, time.monotonic, random.random, _rss_bytes)


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _rss_bytes() -> int:
    """Return the memory that this process has in use; 0 where Linux's /proc is not.  Source: proc(5)."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
