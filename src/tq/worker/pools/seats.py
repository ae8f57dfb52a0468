"""The seats of a pool on this process: one for each handler that runs, those that were given up included.

Invariant: a seat that is kept is given back once, when what keeps it has ended.
"""

import logging

from tq.core.ids import format_id
from tq.worker.assignment import Assignment

_log = logging.getLogger(__name__)


class Seats:
    """*concurrency* seats, some of them kept by handlers whose tasks were abandoned."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._kept: dict[Assignment, object] = {}

    @property
    def left(self) -> int:
        """How many there are, less those that are kept."""
        return self._concurrency - len(self._kept)

    @property
    def stuck(self) -> list[str]:
        """The names of the tasks whose handlers keep a seat."""
        return sorted(work.plan.name for work in self._kept)

    @property
    def kept_by(self) -> list[object]:
        """The threads and asyncio tasks that keep a seat."""
        return list(self._kept.values())

    def keep(self, work: Assignment, why: str) -> None:
        """Let what runs *work* keep its seat though the task is abandoned; *why* is for the log."""
        self._kept[work] = work.run_by
        _log.warning(
            "task %s %s: %s; it keeps 1 of %d seats until the handler returns, %d are left",
            work.plan.name,
            format_id(work.task.id),
            why,
            self._concurrency,
            self.left,
        )

    def give_back(self, work: Assignment) -> bool:
        """Note that the handler of *work* has returned; False if it kept no seat."""
        if work not in self._kept:
            return False
        del self._kept[work]
        _log.info(
            "task %s %s, which had been given up, has returned; its seat is free again",
            work.plan.name,
            format_id(work.task.id),
        )
        return True
