"""The engine's clock: follows the wall, never jumps, stands still while nobody listened.

Leases hang on this clock.  If the process was stopped, or its loop was late, the
heartbeats of that time wait unread in the sockets: time that passed unheard must not
count against the workers.  Invariant: the clock never goes back, and one reading moves it
by at most `STEP_MS_MAX` and a quarter.
"""

from collections.abc import Callable

# The service reads the clock at least every `READ_EVERY_S`: a longer step means that the loop was late.
READ_EVERY_S = 0.25
STEP_MS_MAX = 1_000
# How fast it catches up with the wall, or lets the wall catch up: a quarter of the time that passes.
_SLEW = 0.25


class EngineClock:
    """*wall* gives milliseconds since the epoch and may jump; *monotonic* gives seconds and may not."""

    def __init__(self, wall: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._read_at = monotonic()
        self._now = float(wall())

    def begin(self, at_least: int) -> None:
        """Start at the wall's time, or at *at_least* (the last time a former run knew) if that is later."""
        self._read_at = self._monotonic()
        self._now = float(max(self._wall(), at_least))

    def now(self) -> int:
        """Return the engine's time, in milliseconds since the epoch."""
        read_at = self._monotonic()
        step = min((read_at - self._read_at) * 1_000, STEP_MS_MAX)
        self._read_at = read_at
        behind = self._wall() - (self._now + step)
        slew = step * _SLEW
        self._now += step + max(-slew, min(slew, behind))
        return int(self._now)
