"""What a pool's ``finished`` is in these tests: outcomes, kept and waited for."""

import asyncio
from collections.abc import Callable

from tests.worker.scripted import record
from tq.worker.assignment import Assignment, Outcome, Stage
from tq.worker.executor import Executor


class Ends:
    """Collects what a pool reports."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Assignment, Outcome]] = []
        self.on_end: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def finished(self, work: Assignment, outcome: Outcome) -> None:
        work.run_by = None
        self.outcomes.append((work, outcome))
        self.on_end()
        self._changed.set()

    async def of(self, work: Assignment) -> Outcome:
        """Wait for the end of *work*."""
        async with asyncio.timeout(30):
            while True:
                for ended, outcome in self.outcomes:
                    if ended is work:
                        return outcome
                self._changed.clear()
                await self._changed.wait()


def running(executor: Executor, name: str, *args: object, **spec: object) -> Assignment:
    """An assignment that a dispatcher has just started."""
    task, plan = executor.read(record(name, *args, **spec))
    return Assignment(1, 0, task, plan, 0.0, Stage.RUNNING)
