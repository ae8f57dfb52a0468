"""Dice that fall as bytes say: how a fuzzer that watches what is covered steers what the mutator makes."""

import random


class BytesDice(random.Random):
    """Draws from *data*, two bytes for a number between 0 and 1; when they are used up, as a seed made of them says.

    Equal data draw equally.  A byte changed in it changes one decision and leaves those before it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = data
        self._read = 0

    def random(self) -> float:
        """Return a number from 0 up to 1."""
        taken = self._take(2)
        return super().random() if taken is None else taken / 65_536

    def getrandbits(self, k: int, /) -> int:
        """Return an integer of *k* bits."""
        size = -(-k // 8)
        taken = self._take(size)
        return super().getrandbits(k) if taken is None else taken >> (8 * size - k)

    def _take(self, size: int) -> int | None:
        if self._read + size > len(self._data):
            return None
        taken = int.from_bytes(self._data[self._read : self._read + size], "big")
        self._read += size
        return taken
