"""Pressure: what holds clients back, or makes the broker take no new tasks.

Three measures: the bytes of requests that wait to be served, the free space of the disk, and
whether the store keeps up with what is written.

Invariant: none of them ever holds back a worker: outcomes are what makes room.
"""

from collections.abc import Callable

from tq.broker.config import BrokerSettings
from tq.broker.sources import Log
from tq.store.base import Store

_CHECK_EVERY_S = 0.05


class Pressure:
    """``full`` says why no new tasks are taken, if none are; ``held_back``: clients get no turns."""

    def __init__(self, store: Store, settings: BrokerSettings, monotonic: Callable[[], float], log: Log) -> None:
        self.full: str | None = None
        self.held_back = False
        self._store = store
        self._reserve_bytes = settings.disk_reserve_bytes
        self._buffer_bytes_max = settings.buffer_bytes_max
        self._monotonic = monotonic
        self._log = log
        self._buffered_bytes = 0
        self._held: set[Callable[[], None]] = set()
        self._check_at = 0.0

    @property
    def buffer_full(self) -> bool:
        """Whether the requests that wait, of all connections together, are as many bytes as may be."""
        return self._buffered_bytes >= self._buffer_bytes_max

    def buffer(self, count: int) -> None:
        """Count *count* more bytes of requests that wait or are still coming."""
        self._buffered_bytes += count

    def unbuffer(self, count: int) -> None:
        """Count *count* bytes less, and let those go on that there is room for again."""
        self._buffered_bytes -= count
        if self._held and not self.buffer_full:
            held, self._held = self._held, set()
            for go_on in held:
                go_on()

    def hold(self, go_on: Callable[[], None]) -> None:
        """Call *go_on* once when the buffer is no longer full."""
        self._held.add(go_on)

    def check(self) -> None:
        """Look at the store, unless that was done just now."""
        at = self._monotonic()
        if at < self._check_at:
            return
        self._check_at = at + _CHECK_EVERY_S
        health = self._store.health()
        self._note_free(health.disk_free_bytes)
        # RocksDB would block the loop: clients wait in their sockets until it has caught up.
        held_back = health.is_write_stopped or health.is_write_delayed
        if held_back is not self.held_back:
            self.held_back = held_back
            self._log.warning("store.behind" if held_back else "store.caught_up")

    def _note_free(self, free: int | None) -> None:
        full = None
        if free is not None and free < self._reserve_bytes:
            full = (
                f"the broker's disk has {free} bytes free; below its reserve of {self._reserve_bytes} "
                "it takes no new tasks"
            )
        if (full is None) is not (self.full is None):
            (self._log.warning if full else self._log.info)("disk.full" if full else "disk.free", free_bytes=free)
        self.full = full
