"""What the dispatcher asks of a pool.

Invariant: each assignment given to `run` ends in one call of the pool's ``finished``, on
the event loop, unless it is abandoned.
"""

from collections.abc import Callable
from typing import Protocol

from tq.worker.assignment import Assignment, Outcome

Finished = Callable[[Assignment, Outcome], None]
"""Called on the event loop when an assignment has ended."""


class Pool(Protocol):
    """Runs assignments.  The dispatcher gives it no more at once than its concurrency."""

    async def start(self, finished: Finished) -> None:
        """Make ready to run; *finished* is told of each end."""

    def run(self, work: Assignment) -> None:
        """Start *work*."""

    def interrupt(self, work: Assignment) -> float:
        """Try to end running *work*, as ``work.stop`` says; return the seconds it may take.

        0 means that it cannot be ended: it is to be abandoned.
        """

    def abandon(self, work: Assignment) -> None:
        """Go on as if *work* had ended: its slot is free again, its end is nobody's business."""

    async def stop(self) -> None:
        """Give everything back; what still runs is abandoned or killed."""
