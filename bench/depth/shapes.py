"""The shapes: how the tasks of a deep broker lie."""

from collections.abc import Iterator
from itertools import chain, cycle, islice, repeat
from typing import NamedTuple

from bench.depth.tasks import LATER, task
from bench.systems.loads import FRAME_TASKS
from tq.core.task import Task

# Results of a run are looked at, then they expire.
KEPT_S = 240.0


class Shape(NamedTuple):
    """So many ``queues`` and ``priorities``, among which the tasks are spread evenly, each task to the next.

    What fills the broker is ``holds``: tasks that wait in their ``queue``, wait for a ``retry``, or whose
    ``result`` is kept.
    """

    title: str
    queues: int = 1
    priorities: int = 1
    holds: str = "queue"

    @property
    def names(self) -> list[str]:
        """The queues."""
        return [f"q{number}" for number in range(self.queues)]

    def tasks(self, count: int) -> Iterator[Task]:
        """Yield *count* tasks that do nothing, neighbours in different queues or priorities."""
        return islice(cycle(self._ways()), count)

    def filling(self, count: int, drained: int) -> Iterator[Task]:
        """Yield the *count* tasks that fill the broker.

        The first *drained*, which are handed out while a rate is measured, are spread as `tasks` are.
        The others come in runs of a frame: many of one kind are enqueued faster.
        """
        match self.holds:
            case "retry":
                return repeat(task(LATER, queue=self.names[0]), count)
            case "result":
                return repeat(task(queue=self.names[0], keep_s=KEPT_S), count)
            case _:
                return self._queued(count, drained)

    def _queued(self, count: int, drained: int) -> Iterator[Task]:
        ways = self._ways()
        each, over = divmod(max(0, count - drained), len(ways))
        yield from self.tasks(count - each * len(ways) - over)
        for done in range(0, each, FRAME_TASKS):
            run = min(FRAME_TASKS, each - done)
            yield from chain.from_iterable(repeat(way, run) for way in ways)
        yield from ways[len(ways) - over :]

    def _ways(self) -> list[Task]:
        priorities = range(256 - self.priorities, 256)
        return [task(queue=name, priority=priority) for priority in priorities for name in self.names]


SHAPES = {
    "one": Shape("1 queue"),
    "hundred": Shape("100 queues", queues=100),
    "many": Shape("10,000 queues", queues=10_000),
    "priorities": Shape("256 priorities", priorities=256),
    "retries": Shape("waiting retries", holds="retry"),
    "results": Shape("kept results", holds="result"),
}
