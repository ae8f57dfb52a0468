"""The ids that one client makes: by the broker's clock, in any thread, on either side of a fork.

A broker refuses frame ids that are far from its own time, so the clock is corrected by
what each `Welcome` says.  Invariant: the ids of one process strictly increase.
"""

import os
import threading
from collections.abc import Callable

from tq.core.ids import IdMaker


class ClientIds:
    """Makes task and frame ids."""

    def __init__(self, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._entropy = entropy
        self._offset_ms = 0
        # By process: a fork must not go on with the state, nor with the lock, of its parent.
        self._makers: dict[int, tuple[threading.Lock, IdMaker]] = {}

    def correct(self, broker_clock_ms: int) -> None:
        """Take over the broker's time of this moment."""
        self._offset_ms = broker_clock_ms - self._clock()

    def make(self) -> bytes:
        """Return a new id."""
        return self.make_many(1)[0]

    def make_many(self, count: int) -> list[bytes]:
        """Return *count* new ids, each greater than the one before."""
        pid = os.getpid()
        if pid not in self._makers:
            self._makers.setdefault(pid, (threading.Lock(), IdMaker(self._broker_time, self._entropy)))
        lock, maker = self._makers[pid]
        with lock:
            return maker.make_many(count)

    def _broker_time(self) -> int:
        return self._clock() + self._offset_ms
