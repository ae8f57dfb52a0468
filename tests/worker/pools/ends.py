"""A pool's listener in these tests: outcomes, kept and waited for."""

import asyncio
from collections.abc import Callable

from tests.worker.scripted import record
from tq.worker.assignment import Assignment, Outcome, Stage
from tq.worker.executor import Executor


class Ends:
    """Collects what a pool reports."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Assignment, Outcome]] = []
        self.has_begun: list[Assignment] = []
        self.returns: list[Assignment] = []
        self.on_end: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def finished(self, work: Assignment, outcome: Outcome) -> None:
        work.run_by = None
        self.outcomes.append((work, outcome))
        self.on_end()
        self._changed.set()

    def begun(self, work: Assignment) -> None:
        self.has_begun.append(work)
        self._changed.set()

    def returned(self, work: Assignment) -> None:
        work.run_by = None
        self.returns.append(work)
        self._changed.set()

    def seats_changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the pool will report."""
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def has(self, work: Assignment) -> bool:
        return any(ended is work for ended, _ in self.outcomes)

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
