"""The app of the measurements: tasks that do nothing, so that what is measured is the queue.

They take what a small real task takes: a number and eighty characters.
"""

import time

from tq import App

# ruff: noqa: ARG001 - the arguments are there to travel, not to be used

app = App()

QUEUE = "bench"
TEXT = "x" * 80


@app.task(queue=QUEUE, result_ttl=0)
async def noop(number: int, text: str) -> None:
    """Do nothing, and keep no result."""


@app.task(queue=QUEUE)
async def noop_kept(number: int, text: str) -> int:
    """Do nothing, and return something that is kept for an hour."""
    return number


@app.task(queue=QUEUE)
async def started_at(number: int, text: str) -> float:
    """Return the reading of the machine's monotonic clock, which all its processes share."""
    return time.monotonic()
