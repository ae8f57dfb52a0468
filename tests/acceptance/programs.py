"""The three programs as real processes, for the acceptance tests."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import tq

SOURCE = Path(tq.__file__).parent.parent
WAIT_S_MAX = 20.0
_LISTENING = re.compile(r"listening on (\S+)\n")


class Ended(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


class Started:
    """A program that runs until it is told to stop; its log is a file."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Return the exit code, once there is one."""
        return self.process.wait(WAIT_S_MAX)


def command(program: str, *words: str) -> list[str]:
    """Return the command line of tq-PROGRAM, as an installed script would run it."""
    return [sys.executable, "-c", f"import sys; from tq.bin.entry import {program}; sys.exit({program}())", *words]


def environment(**more: str) -> dict[str, str]:
    """Return an environment without settings but for *more*, in which the programs are found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
    return {**inherited, "PYTHONPATH": str(SOURCE), **more}


def run(program: str, *words: str, cwd: Path | None = None, **variables: str) -> Ended:
    """Run tq-PROGRAM to its end, nobody at its standard input."""
    done = subprocess.run(
        command(program, *words),
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(program: str, *words: str, folder: Path, **variables: str) -> Iterator[Started]:
    """Run tq-PROGRAM in *folder*; it is killed at the end if it still runs."""
    log = folder / f"tq-{program}.log"
    with (
        log.open("a") as stderr,
        subprocess.Popen(
            command(program, *words),
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield Started(process, log)
        finally:
            process.kill()


def address(broker: Started) -> str:
    """Return the URL of a broker, once it prints that it listens."""
    line = _line(broker.process.stdout)
    found = _LISTENING.fullmatch(line)
    assert found is not None, f"tq-broker printed {line!r} and logged:\n{broker.log}"
    return f"tq://{found[1]}"


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    ready, _, _ = select.select([stream], [], [], WAIT_S_MAX)
    return stream.readline() if ready else ""
