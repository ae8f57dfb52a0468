"""Clocks that move when they are told: for whatever is given its time as an argument.

Invariant: monotonic time never goes back; the wall may jump, as a real one may.
"""

from typing import Protocol

# 2025-10-09: a plausible instant, so that what is printed reads like one.
START_MS = 1_760_000_000_000


class Clock(Protocol):
    """What the clocks here have in common: the two readings that the product takes."""

    def wall(self) -> int:
        """Return milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds since some moment of the past."""


class ManualClock:
    """A clock for tests: nothing but `advance` and `jump` moves it."""

    def __init__(self, wall_ms: int = START_MS) -> None:
        self._monotonic_s = 0.0
        self._wall_offset_ms = wall_ms

    def wall(self) -> int:
        """Return milliseconds since the epoch."""
        return self._wall_offset_ms + round(self._monotonic_s * 1_000)

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass; both readings move."""
        assert seconds >= 0, f"time does not go back; got {seconds!r}"
        self._monotonic_s += seconds

    def jump(self, milliseconds: int) -> None:
        """Set the wall forward, or back, as an operator or a time server does; no time passes."""
        self._wall_offset_ms += milliseconds


class SkewedClock:
    """The clock of another machine: time passes as on *clock*, the wall is *skew_ms* ahead and jumps by itself."""

    def __init__(self, clock: Clock, skew_ms: int = 0) -> None:
        self._clock = clock
        self._skew_ms = skew_ms

    def wall(self) -> int:
        """Return milliseconds since the epoch, as this machine has them."""
        return self._clock.wall() + self._skew_ms

    def monotonic(self) -> float:
        """Return the seconds of the clock behind it."""
        return self._clock.monotonic()

    def jump(self, milliseconds: int) -> None:
        """Set this machine's wall forward, or back."""
        self._skew_ms += milliseconds
