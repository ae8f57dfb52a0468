"""How many tasks to hold: enough that no slot waits for the network, few enough to be fair.

A worker holds what it runs and about 50 ms of work besides.  Invariant: the window is
never below the number of seats, and never above it by more than `PREFETCH_MAX`.
"""

AHEAD_S = 0.05
"""How much work to hold besides what runs: some round trips and commits of a broker."""

HELD_UP_S = 0.1
"""How long a task waits behind longer ones before it is handed back to the broker."""

PREFETCH_MAX = 4_000
PREFETCH_BYTES = 4 * 1024 * 1024

# Most of the estimate is history, so that one odd task moves it little; a crowd of them moves it by half.
_WEIGHT_EACH = 0.1
_WEIGHT_MAX = 0.5
# A window that differs by less is not worth a message.
_NEWS_SHARE = 0.25


class Prefetch:
    """Follows how long tasks take, and says how many to hold.

    ``seats`` is how many tasks can run at once; without any the window is closed.  ``fixed`` is a
    prefetch that the user set: so many tasks besides the running ones, whatever they take.
    """

    def __init__(self, seats: int, fixed: int | None) -> None:
        self.seats = seats
        self._fixed = fixed
        self._mean_s: float | None = None
        self._is_held_up = False
        self.told: int | None = None

    def finished(self, tasks: int, seconds: float) -> None:
        """Take into account that *tasks* (1 or more) ended, having run *seconds* in all."""
        mean = seconds / tasks
        if self._mean_s is None:
            self._mean_s = mean
        else:
            weight = min(tasks * _WEIGHT_EACH, _WEIGHT_MAX)
            self._mean_s += (mean - self._mean_s) * weight
        self._is_held_up = False

    def held_up(self, seconds: float) -> None:
        """Take into account that each slot has been busy with one task for *seconds*: hold no more."""
        self._mean_s = max(self._mean_s or 0.0, seconds)
        self._is_held_up = True

    @property
    def window(self) -> int:
        """How many tasks to hold at most, those that run included."""
        return self.seats + self._ahead() if self.seats else 0

    def news(self, window: int | None = None) -> int | None:
        """Return the window, or the one given, if the broker should hear of it, and note that it does.

        It should at first, after ``told`` was set to None, and when the window has moved
        enough.
        """
        if window is None:
            window = self.window
        told = self.told
        if told is not None and (window == told or abs(window - told) < told * _NEWS_SHARE):
            return None
        self.told = window
        return window

    def _ahead(self) -> int:
        if self._fixed is not None:
            return self._fixed
        if self._is_held_up:
            return 0
        if self._mean_s is None:
            # Nothing is known yet: one task for each slot covers the first round trip.
            return min(self.seats, PREFETCH_MAX)
        if self._mean_s * PREFETCH_MAX <= AHEAD_S * self.seats:
            return PREFETCH_MAX
        return int(AHEAD_S * self.seats / self._mean_s)
