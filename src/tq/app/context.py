"""The context of the task that runs: who it is, which attempt, how much time is left.

A worker sets it around every call of a handler, in the event loop, thread or process
where the handler runs; `current_task` reads it from anywhere below.

Invariant: it is a context variable, so tasks that run side by side never see each other's.
"""

import asyncio
import logging
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec

from tq.core.errors import UsageError
from tq.core.ids import format_id


class SoftTimeout(asyncio.CancelledError):
    """Raised in a handler that has run for its ``soft_timeout``: it may put things in order until its ``timeout``.

    Catch it by its name. As it is a cancellation to asyncio, a handler's own tasks, task
    groups and time limits end as they would by one, and ``except Exception`` lets it through.
    """

    def __str__(self) -> str:
        """Say so."""
        return "it ran longer than its soft timeout"


class TaskContext(msgspec.Struct, frozen=True, gc=False):
    """The running task.

    ``task_id`` is its identity as bytes, `id` as the text that clients use.  ``attempt``
    counts from 1 and includes the failed ones; ``losses`` counts the workers that died
    while running it; ``generation`` grows with each redrive.  ``enqueued_at`` is in
    milliseconds since the epoch.  ``deadline`` is the reading of `time.monotonic` at
    which the attempt is out of time.
    """

    task_id: bytes
    name: str
    queue: str
    attempt: int
    losses: int
    generation: int
    enqueued_at: int
    deadline: float
    worker: str

    @property
    def id(self) -> str:
        """The task's id, as text."""
        return format_id(self.task_id)

    def remaining(self) -> float:
        """Return the seconds left for this attempt, never negative."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def fields(self) -> dict[str, object]:
        """What a log entry says of the task: ``task_id``, ``task_name``, ``task_queue``, ``task_attempt``."""
        return {
            "task_id": self.id,
            "task_name": self.name,
            "task_queue": self.queue,
            "task_attempt": self.attempt,
        }

    @property
    def logger(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger of the task's name whose records carry its `fields`."""
        return logging.LoggerAdapter(logging.getLogger(self.name), self.fields)


_current: ContextVar[TaskContext] = ContextVar("tq_task")


def current_task() -> TaskContext:
    """Return the context of the running task.

    Raises:
        UsageError: No task runs here: a plain call of the function, or a thread that
            the handler started without `contextvars.copy_context`.
    """
    try:
        return _current.get()
    except LookupError:
        raise UsageError(
            "no task runs here: tq.current_task() works inside a handler that a worker called, "
            "and in threads it starts by asyncio.to_thread or contextvars.copy_context().run"
        ) from None


def enter(context: TaskContext) -> None:
    """Make *context* the current one of this `contextvars.Context`: a worker gives each task its own."""
    _current.set(context)


class TaskContextFilter(logging.Filter):
    """Gives every record the `fields` of its task: put it on a log handler, use them in its format.

    Outside a task they are ``-``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; every record passes."""
        if not hasattr(record, "task_id"):  # else it comes from `TaskContext.logger`
            context = _current.get(None)
            vars(record).update(context.fields if context else _NO_FIELDS)
        return True


_NO_FIELDS = dict.fromkeys(("task_id", "task_name", "task_queue", "task_attempt"), "-")


def add_task_fields(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the `fields` of the running task to an entry: a processor of structlog.

        structlog.configure(processors=[tq.add_task_fields, ...])

    What the entry says itself stands; outside a task nothing is added.
    """
    context = _current.get(None)
    if context is not None:
        for name, value in context.fields.items():
            entry.setdefault(name, value)
    return entry
