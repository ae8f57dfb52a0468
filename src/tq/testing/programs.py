"""Real programs as child processes: started, waited for until they serve, stopped by their id.

    with start_broker("--data", str(folder / "data"), log=folder / "broker.log") as broker:
        url = broker_url(broker)
        with start_worker("-A", "shop", "--url", url, log=folder / "worker.log") as worker:
            ...
            worker.stop()
        broker.stop()

Standard error goes to a log file, which is where a program says how it is; what a broker
prints is its address.  `Program` runs any other program the same way.

Invariant: a program does not outlive the ``with`` block that started it, however that ends.
"""

import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

START_S_MAX = 30.0
STOP_S_MAX = 30.0
_POLL_S = 0.01
# Below the range from which the system gives ports to clients: who dials a port of that range again and
# again while nobody listens there may get it for its own end, is connected to itself, and keeps a server out.
_PORTS = range(20_000, 32_000)
_LOG_LINES = 20
_LISTENING = "listening on "
_CONNECTED = "connected to broker"


class ProgramError(Exception):
    """A program did not do what it must; the text has the end of its log."""


def tq_command(program: str, *words: str) -> list[str]:
    """Return the command line of *program*, as ``tq-broker``, of this Python: what its installed script does."""
    name = program.removeprefix("tq-")
    return [sys.executable, "-c", f"import sys; from tq.bin.entry import {name}; sys.exit({name}())", *words]


def free_port() -> int:
    """Return a port that nobody listens on, for a server that is to come back to it; the next moment somebody could.

    Raises:
        ProgramError: There is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ProgramError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free")


class Program:
    """One child process, whose standard error goes to *log*."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.log = log
        self._process = process

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start *command* in *directory* with *environment*, the caller's own if there are none.

        It is in a process group of its own: Ctrl-C reaches the caller only, who then
        stops its programs in the right order.  What it logs is added to *log*.
        """
        with log.open("a", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                process_group=0,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def log_text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def write_line(self, line: str) -> None:
        """Write *line* to its standard input.

        Raises:
            ProgramError: It has ended.
        """
        stdin = self._process.stdin
        assert stdin is not None, "it was started with a pipe"
        try:
            stdin.write(f"{line}\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def read_line(self, timeout_s: float = START_S_MAX) -> str:
        """Return the next line of its standard output, once it is there.

        For a program that writes a line only when it is asked for one, or one line in all:
        of two lines that came together the second is not waited for rightly.

        Raises:
            ProgramError: It ended, or wrote nothing for *timeout_s*.
        """
        stdout = self._process.stdout
        assert stdout is not None, "it was started with a pipe"
        if not select.select([stdout], [], [], timeout_s)[0]:
            raise self._error(f"said nothing for {timeout_s:g} s")
        line = stdout.readline()
        if not line:
            raise self._ended()
        return line.rstrip("\n")

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until *text* is in its log *count* times.

        Raises:
            ProgramError: It ended first, or logged nothing like it within `START_S_MAX`.
        """
        deadline = time.monotonic() + START_S_MAX
        while self.log_text.count(text) < count:
            self.check()
            if time.monotonic() > deadline:
                raise self._error(f"has not logged {text!r} {count} times within {START_S_MAX:g} s")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ProgramError: It has ended.
        """
        if self._process.poll() is not None:
            raise self._ended()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, wait for its end and return its exit code.

        Raises:
            ProgramError: It has not ended within `STOP_S_MAX`.
        """
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Return its exit code, once there is one.

        Raises:
            ProgramError: It has not ended within `STOP_S_MAX`.
        """
        try:
            return self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            raise self._error(f"has not ended within {STOP_S_MAX:g} s") from None

    def stop(self) -> None:
        """Ask it to stop, by SIGTERM, and wait for its end.

        Raises:
            ProgramError: It did not end with exit code 0 in time.
        """
        if (code := self.end()) != 0:
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
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # A line that it did not live to read is written at the closing.
                with suppress(BrokenPipeError):
                    pipe.close()

    def _ended(self) -> ProgramError:
        return self._error(f"ended with exit code {self._process.wait(STOP_S_MAX)}")

    def _error(self, what: str) -> ProgramError:
        lines = self.log_text.splitlines()[-_LOG_LINES:]
        return ProgramError("\n".join([f"process {self.pid} {what}; the end of {self.log.name}:", *lines]))


def start_broker(*words: str, log: Path, environment: Mapping[str, str] | None = None) -> Program:
    """Start a tq-broker on a free port of this machine; `broker_url` waits until it listens."""
    return Program.start(tq_command("tq-broker", "--listen", "127.0.0.1:0", *words), log=log, environment=environment)


def broker_url(broker: Program) -> str:
    """Return the URL of a tq-broker, once it listens; to be asked for once.

    Raises:
        ProgramError: It ended, or printed something else.
    """
    line = broker.read_line()
    if not line.startswith(_LISTENING):
        raise ProgramError(f"process {broker.pid} printed {line!r}, not where it listens")
    return f"tq://{line.removeprefix(_LISTENING)}"


def start_worker(*words: str, log: Path, environment: Mapping[str, str] | None = None) -> Program:
    """Start a tq-worker, and return it once it has met its broker; its queues it asks for the moment after.

    Raises:
        ProgramError: It ended, or has not reached the broker within `START_S_MAX`.
    """
    already = log.read_text(encoding="utf-8").count(_CONNECTED) if log.exists() else 0
    worker = Program.start(tq_command("tq-worker", *words), log=log, environment=environment)
    try:
        worker.wait_for_log(_CONNECTED, already + 1)
    except BaseException:  # an interrupt too: nobody has the worker yet who would end it
        with worker:
            raise
    return worker
