"""Control: what an operator does to whole queues and to their dead letters.

Invariant: a queue that is named and does not exist is refused before anything changes.
"""

from tq.engine import commands
from tq.engine.changes import Changes
from tq.engine.dispatch import Lanes
from tq.engine.operations import Operations
from tq.engine.queues import Queues


class Control:
    """The commands of operators."""

    def __init__(self, queues: Queues, lanes: Lanes, operations: Operations) -> None:
        self._queues = queues
        self._lanes = lanes
        self._operations = operations

    def pause(self, command: commands.PauseQueue, now: int, changes: Changes) -> int:
        """Let a queue hand out nothing, or go on; returns how many of its tasks are ready."""
        queue = self._queues.named(command.name)
        queue.row.paused = command.paused
        self._queues.touch(queue)
        if not command.paused:
            self._lanes.wake_all(queue)
        return queue.ready

    def act_on_dead(self, kind: str, name: str | None, ids: list[bytes], now: int, changes: Changes) -> int:
        """Redrive or forget dead letters: of *ids*, or all of queue *name*, or all; returns how many there are."""
        if ids:
            return self._operations.act_on_ids(kind, ids, now, changes)
        queues = [self._queues.named(name)] if name is not None else list(self._queues.all())
        return self._operations.act_on_dead(kind, queues, now, changes)

    def purge(self, command: commands.PurgeQueue, now: int, changes: Changes) -> int:
        """Drop what is ready and scheduled in a queue; returns how many tasks that is."""
        return self._operations.purge(self._queues.named(command.name), changes)
