"""The tasks of a depth run: one that does nothing, and one that asks to be tried again after the run."""

from bench.systems.loads import TEXT
from tq import App, Retry
from tq.core.retry import RetryPolicy
from tq.core.task import Task

NOOP = "noop"
LATER = "later"

_AFTER_S = 24 * 3_600

app = App()


@app.task(name=NOOP)
async def noop(number: int, text: str) -> None:
    """Do nothing."""


@app.task(name=LATER)
async def later(number: int, text: str) -> None:  # noqa: ARG001 - the arguments are what it is enqueued with
    """Ask for another attempt, long after the run."""
    raise Retry(after=_AFTER_S)


def task(name: str = NOOP, *, queue: str, priority: int = 128, keep_s: float = 0) -> Task:
    """Return a task to enqueue, whose result is kept for *keep_s*."""
    building = Task.build(name).queue(queue).priority(priority).keep_result(keep_s)
    return building.retry(RetryPolicy(max_attempts=3)).args(0, TEXT).task()
