"""Waiters: which connections are to be told how a task ends.

Kept in memory only: a client asks again after a reconnect.  Invariant: a task that has
ended has no waiters.
"""

from tq.core.errors import Overloaded
from tq.core.outcome import TaskResult
from tq.engine.changes import Changes, Ending

WAITS_MAX = 1_000_000


class Waiters:
    """The waiting connections by task id, and the ids by connection."""

    def __init__(self) -> None:
        self._by_task: dict[bytes, set[int]] = {}
        self._by_connection: dict[int, set[bytes]] = {}
        self._count = 0

    def add(self, task_ids: list[bytes], connection: int) -> None:
        """Let *connection* hear of the end of these tasks.

        Raises:
            Overloaded: The broker would hold more waits than it may; it holds none of these.
        """
        held = self._by_connection.get(connection)
        fresh = set(task_ids) if held is None else {task_id for task_id in task_ids if task_id not in held}
        if self._count + len(fresh) > WAITS_MAX:
            raise Overloaded(f"{WAITS_MAX} waits for results may be held, {self._count} are; wait for fewer at a time")
        for task_id in fresh:
            self._by_task.setdefault(task_id, set()).add(connection)
        if fresh:
            self._by_connection.setdefault(connection, set()).update(fresh)
            self._count += len(fresh)

    def remove(self, task_id: bytes, connection: int) -> None:
        """Forget one wait, if there is one."""
        connections = self._by_task.get(task_id)
        if connections and connection in connections:
            self._unlink(task_id, connection)
            connections.discard(connection)
            if not connections:
                del self._by_task[task_id]

    def forget(self, connection: int) -> None:
        """Forget all waits of a connection that has gone."""
        for task_id in list(self._by_connection.get(connection, ())):
            self.remove(task_id, connection)

    def tell(self, result: TaskResult, changes: Changes) -> None:
        """Let out *result* to those who wait for it, once the batch is durable."""
        connections = self._by_task.pop(result.id, None)
        if connections:
            for connection in connections:
                self._unlink(result.id, connection)
            # One rule for all: what is told of an end is synced first.
            changes.promised = True
            changes.endings.append(Ending(frozenset(connections), result))

    def __contains__(self, task_id: bytes) -> bool:
        return task_id in self._by_task

    def _unlink(self, task_id: bytes, connection: int) -> None:
        tasks = self._by_connection[connection]
        tasks.discard(task_id)
        if not tasks:
            del self._by_connection[connection]
        self._count -= 1
