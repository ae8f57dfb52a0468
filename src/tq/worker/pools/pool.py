"""What the dispatcher asks of a pool, and what it is told by it.

Invariant: each assignment given to `Pool.run` ends in one call of `Listener.finished` or
`Listener.returned`, on the event loop, unless it is abandoned.
"""

from typing import Protocol

from tq.worker.assignment import Assignment, Outcome


class Listener(Protocol):
    """Is told, on the event loop, what becomes of what a pool was given."""

    def finished(self, work: Assignment, outcome: Outcome) -> None:
        """Note that *work* has ended."""

    def begun(self, work: Assignment) -> None:
        """Note that *work* runs now, if it was given with ``has_begun`` set to False by its pool."""

    def returned(self, work: Assignment) -> None:
        """Take *work* back: what was to run it is gone, and had not begun."""

    def seats_changed(self) -> None:
        """Note that `Pool.seats` is not what it was."""


class Pool(Protocol):
    """Runs assignments.  The dispatcher gives it no more at once than it has seats."""

    @property
    def seats(self) -> int:
        """How many assignments can run at once now, those that run included."""

    @property
    def stuck(self) -> list[str]:
        """The names of the abandoned tasks whose handlers still run."""

    async def start(self, listener: Listener) -> None:
        """Make ready to run; *listener* is told of each end."""

    def run(self, work: Assignment) -> None:
        """Start *work*, at once: a seat is free."""

    def remind(self, work: Assignment) -> bool:
        """Raise `SoftTimeout` in the handler of running *work*, once; return False if it must be asked again later."""

    def interrupt(self, work: Assignment) -> float:
        """Try to end running *work*, as ``work.stop`` says; return the seconds it may take.

        0 means that it cannot be ended: it is to be abandoned.
        """

    def abandon(self, work: Assignment) -> None:
        """Go on as if *work* had ended: its end is nobody's business."""

    async def stop(self) -> None:
        """Give everything back; what still runs is abandoned or killed."""
