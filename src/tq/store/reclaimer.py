"""The thread that gives room back to the disk, so that neither the loop nor a commit waits for that.

Invariants: there is one thread at most, which ends with `close`; ranges are taken in the
order in which they came, and one that cannot be taken harms nothing.
"""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

# Each is compacted within seconds: so many wait only if something is wrong with the disk.
WAITING_MAX = 1_000


class Reclaimer:
    """Calls *compact* with one range after another.  The thread is begun with the first."""

    def __init__(self, compact: Callable[[bytes, bytes], None]) -> None:
        self._compact = compact
        self._ranges: SimpleQueue[tuple[bytes, bytes] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._is_closing = False

    def request(self, start: bytes, end: bytes) -> None:
        """Ask for the range from *start* to *end*; dropped where too many wait."""
        if self._is_closing or self._ranges.qsize() >= WAITING_MAX:
            return
        self._ranges.put((start, end))
        if self._thread is None:
            self._thread = Thread(target=self._run, name="tq-store-reclaim", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for the range that is being compacted, drop the others, end the thread."""
        self._is_closing = True
        self._ranges.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (span := self._ranges.get()) is not None:
            if self._is_closing:
                return
            try:
                self._compact(*span)
            except Exception:  # noqa: BLE001, S112 - what cannot be compacted is there as before; commits tell of the disk
                continue
