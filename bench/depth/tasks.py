"""The tasks of a depth run: one that does nothing, and one that asks to be tried again after the run.

Each adds one to a number in a file that the program maps into its memory, at the cost of an addition:
whoever maps the file sees how many have run, and the broker is not asked.
"""

import mmap
import os
from pathlib import Path

from bench.systems.loads import TEXT
from tq import App, Retry
from tq.core.retry import RetryPolicy
from tq.core.task import Task

NOOP = "noop"
LATER = "later"
TALLY_VARIABLE = "DEPTH_TALLY"

_TALLY_BYTES = 8
_AFTER_S = 24 * 3_600

app = App()


def tally_of(path: Path) -> memoryview:
    """Return the file's one number, as it is now and later; it is 0 where there is no file yet."""
    with path.open("a+b") as file:
        file.truncate(_TALLY_BYTES)
        return memoryview(mmap.mmap(file.fileno(), _TALLY_BYTES)).cast("Q")


# One process and one event loop write it.  Where nobody counts, nobody reads it.
_tally = (
    tally_of(Path(os.environ[TALLY_VARIABLE]))
    if TALLY_VARIABLE in os.environ
    else memoryview(bytearray(_TALLY_BYTES)).cast("Q")
)


@app.task(name=NOOP)
async def noop(number: int, text: str) -> None:  # noqa: ARG001 - the arguments are what it is enqueued with
    """Do nothing."""
    _tally[0] += 1


@app.task(name=LATER)
async def later(number: int, text: str) -> None:  # noqa: ARG001 - the arguments are what it is enqueued with
    """Ask for another attempt, long after the run."""
    _tally[0] += 1
    raise Retry(after=_AFTER_S)


def task(name: str = NOOP, *, queue: str, priority: int = 128, keep_s: float = 0) -> Task:
    """Return a task to enqueue, whose result is kept for *keep_s*."""
    building = Task.build(name).queue(queue).priority(priority).keep_result(keep_s)
    return building.retry(RetryPolicy(max_attempts=3)).args(0, TEXT).task()
