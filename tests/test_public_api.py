"""The public names are locked: adding or removing one is a decision, made here as well.

A package is public by having an `__all__`. The lists are sorted as ruff sorts `__all__`.
"""

import importlib
import pkgutil
from types import ModuleType

import pytest

import tq

PUBLIC: dict[str, list[str]] = {
    "tq": [
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
    ],
    "tq.client": [
        "AsyncClient",
        "DeadAction",
        "Dialer",
        "EnqueueRefused",
        "QueueAction",
        "RefusedTask",
        "ResultTimeout",
        "SyncClient",
        "TcpDialer",
    ],
    "tq.worker": ["Worker"],
}


def packages() -> dict[str, ModuleType]:
    inside = [m.name for m in pkgutil.walk_packages(tq.__path__, "tq.") if m.ispkg]
    return {name: importlib.import_module(name) for name in ["tq", *inside]}


def test_the_public_packages_are_the_listed_ones() -> None:
    public = {name for name, package in packages().items() if hasattr(package, "__all__")}

    assert public == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_package_exports_the_listed_names(name: str) -> None:
    exported = importlib.import_module(name).__all__

    assert sorted(exported) == sorted(PUBLIC[name])


@pytest.mark.parametrize("name", PUBLIC)
def test_every_exported_name_is_there(name: str) -> None:
    package = importlib.import_module(name)

    missing = [exported for exported in PUBLIC[name] if not hasattr(package, exported)]

    assert not missing
