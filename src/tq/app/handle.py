"""Handles: what one holds of a task that was enqueued, to wait for it, look at it or withdraw it.

Invariant: a handle that has seen its task end keeps the outcome and asks no more.
"""

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from tq.app.clients import Clients
from tq.core.errors import BrokerError, TaskNotFound, WrongState
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskCancelled, TaskDead, TaskResult
from tq.core.task import TaskView

R = TypeVar("R")


class Handle(Generic[R]):
    """One enqueued task, whose handler returns *R*.  It may be used from any thread, and awaited in any loop.

    Two handles of one task are equal.  The methods that start with ``a`` are for
    coroutines and do what those without it do for threads.
    """

    __slots__ = ("_clients", "_outcome", "_read", "task_id")

    def __init__(self, task_id: TaskId, clients: Clients, read: Callable[[bytes, str], R]) -> None:
        self.task_id = task_id
        self._clients = clients
        self._read = read
        self._outcome: TaskResult | None = None

    @property
    def id(self) -> str:
        """The task's id as text: keep it, and get a handle from it by `App.handle`."""
        return format_id(self.task_id)

    def result(self, timeout: float | None = None) -> R:
        """Return what the handler returned, waiting for it up to *timeout* seconds (None: as long as it takes).

        None where the task keeps no result (``result_ttl=0``).

        Raises:
            TaskDead: It failed for good; the text has the last failure and its traceback.
            TaskCancelled: It was cancelled, or purged with its queue.
            TaskNotFound: It ended longer ago than its result is kept.
            ResultTimeout: It has not ended yet; it goes on.
        """
        if self._outcome is None:
            self._outcome = self._clients.blocking().wait(self.task_id, timeout)
        return self._value(self._outcome)

    async def aresult(self, timeout: float | None = None) -> R:
        """Do what `result` does, in a coroutine; ``await handle`` is the same without a timeout."""
        if self._outcome is None:
            self._outcome = await self._clients.of_this_loop().wait(self.task_id, timeout)
        return self._value(self._outcome)

    def __await__(self) -> Generator[Any, Any, R]:
        """Wait for the result."""
        return self.aresult().__await__()

    def status(self) -> TaskView:
        """Return what the broker tells about the task now.

        Raises:
            TaskNotFound: It ended longer ago than its result is kept.
        """
        return self._seen(self._clients.blocking().get([self.task_id]))

    async def astatus(self) -> TaskView:
        """Do what `status` does, in a coroutine."""
        return self._seen(await self._clients.of_this_loop().get([self.task_id]))

    def cancel(self) -> bool:
        """Withdraw the task; return False if it is too late, because it runs or has ended.

        Raises:
            TaskNotFound: It ended longer ago than its result is kept.
        """
        return _withdrawn(self._clients.blocking().cancel([self.task_id]))

    async def acancel(self) -> bool:
        """Do what `cancel` does, in a coroutine."""
        return _withdrawn(await self._clients.of_this_loop().cancel([self.task_id]))

    def ended(self, outcome: TaskResult) -> "Handle[R]":
        """Take note of how the task ended, and return the handle."""
        self._outcome = outcome
        return self

    def _value(self, outcome: TaskResult) -> R:
        match outcome.state:
            case TaskState.DEAD:
                raise TaskDead(_obituary(self.id, outcome), outcome)
            case TaskState.CANCELLED:
                raise TaskCancelled(f"task {self.id} was cancelled, or purged with its queue, before it ran", outcome)
            case _ if outcome.result is None:
                return None  # type: ignore[return-value]  # as documented, where no result is kept
            case _:
                return self._read(outcome.result, outcome.codec)

    def _seen(self, views: list[TaskView | None]) -> TaskView:
        (view,) = views
        if view is None:
            raise TaskNotFound(f"task {self.id}: never enqueued, purged, or past the time its result is kept")
        return view

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and self.task_id == other.task_id

    def __hash__(self) -> int:
        return hash(self.task_id)

    def __repr__(self) -> str:
        return f"<Handle of task {self.id}>"


def _withdrawn(refused: dict[TaskId, BrokerError]) -> bool:
    """Tell whether the task was withdrawn; False where its state did not allow it."""
    for error in refused.values():
        if not isinstance(error, WrongState):
            raise error
    return not refused


def _obituary(task: str, outcome: TaskResult) -> str:
    reason = outcome.reason.value if outcome.reason else "unknown"
    head = f"task {task} is in the dead letter ({reason}; attempts {outcome.attempts}, losses {outcome.losses})"
    failure = outcome.failure
    if failure is None:
        return head
    text = f"{head}: {failure.type}: {failure.message}"
    return f"{text}\n\n{failure.traceback.rstrip()}" if failure.traceback else text
