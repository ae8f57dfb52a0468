"""The real programs, as child processes: started, waited for, stopped in good order.

    with Program.start(tq("tq-broker", "--listen", "127.0.0.1:0"), log=Path("broker.log")) as broker:
        address = broker.first_line().removeprefix("listening on ")
        ...
        broker.stop()

Invariant: a program does not outlive the ``with`` block that started it, however that ends.
"""

import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_S_MAX = 30.0
STOP_S_MAX = 30.0
_LOG_LINES = 20


class ProgramError(Exception):
    """A program did not do what it must; the text has the end of its log."""


def tq(program: str, *words: str) -> list[str]:
    """Return the command line of *program*, as ``tq-broker``, of this Python: what its installed script does."""
    module = f"tq.bin.{program.removeprefix('tq-')}"
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *words]


class Program:
    """One child process, whose standard error goes to *log*."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.log = log
        self._process = process

    @classmethod
    def start(cls, command: Sequence[str], *, log: Path) -> Self:
        """Start *command*.

        It is in a process group of its own: Ctrl-C reaches the caller only, who then
        stops its programs in the right order.
        """
        with log.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, process_group=0
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def first_line(self) -> str:
        """Return the first line of its standard output, once it is there.

        Raises:
            ProgramError: It ended, or wrote nothing, first.
        """
        stdout = self._process.stdout
        assert stdout is not None, "it was started with a pipe"
        deadline = time.monotonic() + START_S_MAX
        if not select.select([stdout], [], [], deadline - time.monotonic())[0]:
            raise self._error(f"said nothing for {START_S_MAX:g} s")
        line = stdout.readline()
        if not line:
            raise self._error(f"ended with exit code {self._process.wait(STOP_S_MAX)}")
        return line.rstrip("\n")

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ProgramError: It has ended.
        """
        if self._process.poll() is not None:
            raise self._error(f"ended with exit code {self._process.returncode}")

    def stop(self) -> None:
        """Ask it to stop, by SIGTERM, and wait for its end.

        Raises:
            ProgramError: It did not end with exit code 0 in time.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            raise self._error(f"has not stopped {STOP_S_MAX:g} s after SIGTERM") from None
        if code != 0:
            raise self._error(f"stopped with exit code {code}, not 0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After `stop` there is nothing left to do; else an error is on its way, and how this ends is not to hide it.
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _error(self, what: str) -> ProgramError:
        lines = self.log.read_text(encoding="utf-8").splitlines()[-_LOG_LINES:]
        return ProgramError("\n".join([f"process {self.pid} {what}; the end of {self.log.name}:", *lines]))
