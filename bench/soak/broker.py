"""The broker of a soak over its lives, each on the same port and data.

Invariant: no process that was started here outlives the ``with`` block.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tq.testing.programs import Program, broker_url, free_port, tq_command


class KilledBroker:
    """A tq-broker with *words*, which is killed and started again."""

    def __init__(self, *words: str, log: Path) -> None:
        self.url = ""
        self.log = log
        self._command = tq_command("tq-broker", "--listen", f"127.0.0.1:{free_port()}", *words)
        self._program: Program | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._program is not None:
            with self._program:
                pass

    @contextmanager
    def alive(self) -> Iterator[int]:
        """Lend the id of its process, which is not killed meanwhile.

        Raises:
            ProgramError: It has ended by itself.
        """
        with self._lock:
            assert self._program is not None, "it was started"
            self._program.check()
            yield self._program.pid

    def kill(self) -> None:
        """Kill it, and start it again.

        Raises:
            ProgramError: It had ended by itself, or does not start.
        """
        with self._lock:
            assert self._program is not None, "it was started"
            self._program.check()
            with self._program as program:
                program.end(signal.SIGKILL)
            self._start()

    def _start(self) -> None:
        self._program = Program.start(self._command, log=self.log)
        self.url = broker_url(self._program)
