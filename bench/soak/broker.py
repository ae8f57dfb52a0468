"""The broker of a soak over its lives, each on the same port and data.

Invariant: no process that was started here outlives the ``with`` block.
"""

import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tq.testing.programs import Program, broker_url, tq_command

# Below the range from which the system gives ports to clients: who dials a port of that range while nobody
# listens there may get it for its own end, and keep the broker out.
_PORTS = range(20_000, 32_000)


class KilledBroker:
    """A tq-broker with *words*, which is killed and started again."""

    def __init__(self, *words: str, log: Path) -> None:
        self.url = ""
        self.log = log
        self._command = tq_command("tq-broker", "--listen", f"127.0.0.1:{_free_port()}", *words)
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


def _free_port() -> int:
    """Return a port that nobody listens on."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {_PORTS} is free")
