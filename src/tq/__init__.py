"""tq: a distributed task queue with its own durable broker.

    from tq import App, RetryPolicy

    app = App("tq://127.0.0.1:7766")

    @app.task(queue="mail", priority="high", retry=RetryPolicy(max_attempts=5), timeout=30)
    async def send(to: str, body: str) -> str: ...

    handle = send.enqueue("a@b.c", "hi")
    handle.result(timeout=10)

These are the names for programs that declare and enqueue tasks.  Workers inside a program
are in `tq.worker`, clients that speak of tasks as data in `tq.client`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tq.core.version import __version__

if TYPE_CHECKING:
    from tq.app.app import App
    from tq.app.context import SoftTimeout, TaskContext, TaskContextFilter, add_task_fields, current_task
    from tq.app.declared import DeclaredTask
    from tq.app.handle import Handle
    from tq.app.handler import TaskHandler
    from tq.app.lifespan import PROVIDED
    from tq.app.middleware import Middleware
    from tq.client.errors import EnqueueRefused, ResultTimeout
    from tq.core.errors import (
        BrokerError,
        BrokerUnavailable,
        ConfigError,
        InvalidArguments,
        NotSerializable,
        TaskNotFound,
        TaskQueueError,
        TransportError,
        UsageError,
    )
    from tq.core.lifecycle import TaskState
    from tq.core.outcome import Reject, Retry, TaskCancelled, TaskDead, TaskError
    from tq.core.priority import Tier
    from tq.core.retry import RetryPolicy
    from tq.core.task import Task, TaskView

# Where each name is; it is imported when it is first used, so that a program pays only for its own layers.
_HOMES = {
    "App": "tq.app.app",
    "BrokerError": "tq.core.errors",
    "BrokerUnavailable": "tq.core.errors",
    "ConfigError": "tq.core.errors",
    "DeclaredTask": "tq.app.declared",
    "EnqueueRefused": "tq.client.errors",
    "Handle": "tq.app.handle",
    "InvalidArguments": "tq.core.errors",
    "Middleware": "tq.app.middleware",
    "NotSerializable": "tq.core.errors",
    "PROVIDED": "tq.app.lifespan",
    "Reject": "tq.core.outcome",
    "ResultTimeout": "tq.client.errors",
    "Retry": "tq.core.outcome",
    "RetryPolicy": "tq.core.retry",
    "SoftTimeout": "tq.app.context",
    "Task": "tq.core.task",
    "TaskCancelled": "tq.core.outcome",
    "TaskContext": "tq.app.context",
    "TaskContextFilter": "tq.app.context",
    "add_task_fields": "tq.app.context",
    "TaskDead": "tq.core.outcome",
    "TaskError": "tq.core.outcome",
    "TaskHandler": "tq.app.handler",
    "TaskNotFound": "tq.core.errors",
    "TaskQueueError": "tq.core.errors",
    "TaskState": "tq.core.lifecycle",
    "TaskView": "tq.core.task",
    "Tier": "tq.core.priority",
    "TransportError": "tq.core.errors",
    "UsageError": "tq.core.errors",
    "current_task": "tq.app.context",
}

__all__ = [
    "PROVIDED",
    "App",
    "BrokerError",
    "BrokerUnavailable",
    "ConfigError",
    "DeclaredTask",
    "EnqueueRefused",
    "Handle",
    "InvalidArguments",
    "Middleware",
    "NotSerializable",
    "Reject",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "SoftTimeout",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskContextFilter",
    "TaskDead",
    "TaskError",
    "TaskHandler",
    "TaskNotFound",
    "TaskQueueError",
    "TaskState",
    "TaskView",
    "Tier",
    "TransportError",
    "UsageError",
    "__version__",
    "add_task_fields",
    "current_task",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'tq' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
