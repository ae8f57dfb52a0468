"""The three programs as real processes, for the acceptance tests."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tq
from tq.testing.programs import Program, tq_command

SOURCE = Path(tq.__file__).parent.parent
WAIT_S_MAX = 20.0


class Ended(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """Return an environment without settings but for *more*, in which the programs are found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
    return {**inherited, "PYTHONPATH": str(SOURCE), **more}


def run(program: str, *words: str, cwd: Path | None = None, **variables: str) -> Ended:
    """Run tq-PROGRAM to its end, nobody at its standard input."""
    done = subprocess.run(
        tq_command(f"tq-{program}", *words),
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
def started(program: str, *words: str, folder: Path, **variables: str) -> Iterator[Program]:
    """Run tq-PROGRAM in *folder*; it is stopped at the end if it still runs."""
    log = folder / f"tq-{program}.log"
    command = tq_command(f"tq-{program}", *words)
    with Program.start(command, log=log, directory=folder, environment=environment(**variables)) as running:
        yield running
