"""What the engine must remember of itself: its epoch, its sequence, its clock, its floors.

Invariant: a sequence number is given out once, over all runs.  A block of numbers is
made durable before the first of it is used; a crash loses the rest of the block.
"""

from tq.core.errors import StoreTooNew
from tq.core.lease import EPOCH_MAX
from tq.core.task import RECORD_FORMAT
from tq.engine.changes import Changes, Reader
from tq.engine.rows import META, ROWS_FORMAT, u64

_SEQ_BLOCK = 1 << 20
_CLOCK_STEP_MS = 1_000


class Meta:
    """The rows under `META`.  Numbers only; a missing one is 0."""

    def __init__(self) -> None:
        self.epoch = 0
        self._seq = 0
        self._seq_reserved = 0
        self._clock_written = 0

    def restore(self, reader: Reader, changes: Changes) -> int:
        """Read the rows, begin a new epoch, and return the last instant that was written.

        Raises:
            StoreTooNew: The rows, or the records of tasks in them, were written by a later version.
        """
        found = _read(reader, b"format")
        if found > ROWS_FORMAT:
            raise StoreTooNew(f"the data has rows of format {found}; this version knows up to {ROWS_FORMAT}")
        records = _read(reader, b"records")
        if records > RECORD_FORMAT:
            raise StoreTooNew(f"the data has tasks of format {records}; this version knows up to {RECORD_FORMAT}")
        self.write(b"format", ROWS_FORMAT, changes)
        self.write(b"records", RECORD_FORMAT, changes)
        self.epoch = _read(reader, b"epoch") + 1
        assert self.epoch <= EPOCH_MAX, "a restart every second would take half a year to get here"
        self.write(b"epoch", self.epoch, changes)
        self._seq = self._seq_reserved = _read(reader, b"seq")
        self._clock_written = _read(reader, b"clock")
        changes.promised = True
        return self._clock_written

    def next_seq(self, changes: Changes, count: int = 1) -> int:
        """Return the first of *count* consecutive numbers that were never given out before."""
        first = self._seq + 1
        self._seq += count
        if self._seq > self._seq_reserved:
            self._seq_reserved = self._seq + _SEQ_BLOCK
            self.write(b"seq", self._seq_reserved, changes)
        return first

    def keep_clock(self, now: int, changes: Changes) -> None:
        """Write the clock with a batch that is written anyway, at most once a second."""
        if now - self._clock_written >= _CLOCK_STEP_MS:
            self._clock_written = now
            self.write(b"clock", now, changes)

    @staticmethod
    def write(name: bytes, number: int, changes: Changes) -> None:
        """Write one number."""
        changes.writes[META + name] = u64(number)


def _read(reader: Reader, name: bytes) -> int:
    value = reader.get(META + name)
    return int.from_bytes(value, "big") if value else 0


read_floor = _read
