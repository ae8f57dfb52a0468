"""The standard error of a child: passed on to this process's own, its end remembered.

What a child says before it dies is often the only word about why: the stack of a crash in
native code, the message of an allocator.

Invariant: what is remembered is at most `LAST_BYTES_MAX`; everything is passed on, in whole
lines, unless this process's standard error refuses it.
"""

import asyncio
import os

LAST_BYTES_MAX = 2_048
"""Enough for a stack of twenty frames; it travels with the failure of the task."""

_READ_BYTES = 65_536
# A line that has not ended after so much is passed on as it is.
_LINE_BYTES_MAX = 8_192
_STDERR = 2


class ChildStderr:
    """The reading end of a pipe; *file*, a descriptor, is where what comes out of it goes.

    Made on the running loop.  ``write_end`` is for the child; close it here once the child has it.
    ``is_open`` until nobody holds that end any more, or `close`.
    """

    def __init__(self, file: int = _STDERR) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        self.is_open = True
        self._line = bytearray()
        self._last = bytearray()
        self._loop.add_reader(self._read_end, self._read)

    def forget(self) -> None:
        """Remember only what is said from now on: what a child said of one task is none of the next."""
        self._read()
        self._last.clear()

    def last_words(self) -> str:
        """Return the last whole lines of what it has said, up to now; without a line feed at the end."""
        self._read()
        said = bytes(self._last)
        if len(said) == LAST_BYTES_MAX:
            # The first line is cut, unless it is the only one.
            said = said.partition(b"\n")[2] or said
        return said.decode("utf-8", "replace").strip("\r\n")

    def close(self) -> None:
        """Read no more; twice is once.  What still writes gets a broken pipe."""
        if self.is_open:
            self._read()
        if self.is_open:
            self._end()

    def _read(self) -> None:
        """Take what is there, and pass it on."""
        while self.is_open:
            try:
                data = os.read(self._read_end, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            self._last += data
            del self._last[:-LAST_BYTES_MAX]
            self._line += data
            # A carriage return ends the line of a progress bar.
            end = max(self._line.rfind(b"\n"), self._line.rfind(b"\r")) + 1
            self._pass_on(end if end or len(self._line) < _LINE_BYTES_MAX else len(self._line))
            if len(data) < _READ_BYTES:
                return

    def _end(self) -> None:
        self.is_open = False
        self._loop.remove_reader(self._read_end)
        os.close(self._read_end)
        self._pass_on(len(self._line))

    def _pass_on(self, count: int) -> None:
        rest = memoryview(bytes(self._line[:count]))
        del self._line[:count]
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            # It is closed, or full and does not wait: there is nowhere to say so.
            pass
