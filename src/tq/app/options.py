"""Options: how a task says where and how it wants to be run, and what of it the broker is told.

Times are in seconds here, as people write them, and in milliseconds in a `TaskSpec`.
"""

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, TypedDict

import msgspec

from tq.core.errors import UsageError
from tq.core.priority import parse_priority
from tq.core.retry import RetryPolicy
from tq.core.task import TaskSpec
from tq.core.times import milliseconds


class Options(TypedDict, total=False):
    """What may differ from one enqueue to the next: `DeclaredTask.using`."""

    queue: str
    """The queue, ``default`` by default."""
    priority: int | str
    """0 to 255, higher is more urgent, or ``low``, ``normal``, ``high``; 128 by default."""
    retry: RetryPolicy
    """How often and when a failed attempt is tried again; 5 attempts in all by default."""
    timeout: float
    """How many seconds one attempt may run; an hour by default."""
    result_ttl: float
    """How many seconds the result is kept, 0 for not at all; an hour by default."""
    max_losses: int
    """How often a worker may die running it before it is dead; 3 by default."""


class Declaration(Options, total=False):
    """What is said once, where the task is declared: `App.task`, or attributes of a `TaskHandler`."""

    name: str
    """By which workers know the task; ``module.function`` by default, see `tq.app.naming`."""
    codec: str
    """How arguments and result are encoded: ``msgpack`` (the default) or ``json``."""
    soft_timeout: float
    """After how many seconds `SoftTimeout` is raised in the handler; never by default."""
    reject_on: "Exceptions"
    """Exceptions after which the task is not tried again but goes to the dead letter."""
    redact: tuple[str, ...]
    """Parameters whose values no log entry, error or failure of ours may show; none by default."""


Exceptions = tuple[type[BaseException], ...]

OPTIONS = ("queue", "priority", "retry", "timeout", "result_ttl", "max_losses", "codec")
"""Those that become part of the `TaskSpec`."""


def spec_with(spec: TaskSpec, options: Mapping[str, Any]) -> TaskSpec:
    """Return *spec* with some of `OPTIONS` changed.

    Raises:
        UsageError: There is no such option, or one is out of its bounds or of the wrong type.
    """
    unknown = options.keys() - set(OPTIONS)
    if unknown:
        raise UsageError(
            f"task {spec.name!r} has no option {', '.join(sorted(unknown))}; there are {', '.join(OPTIONS)}"
        )
    if not isinstance(options.get("retry", spec.retry), RetryPolicy):
        raise UsageError(
            f"task {spec.name!r}: retry is a RetryPolicy, as RetryPolicy(max_attempts=5); got {options['retry']!r}"
        )
    try:
        changed = msgspec.structs.replace(spec, **_fields(msgspec.convert(dict(options), Declaration)))
        changed.check()
    except msgspec.ValidationError as error:
        text, _, path = str(error).replace("`", "").partition(" - at $.")
        raise UsageError(f"task {spec.name!r}: {path}: {text[:1].lower()}{text[1:]}") from error
    except ValueError as error:
        text = str(error)
        raise UsageError(text if repr(spec.name) in text else f"task {spec.name!r}: {text}") from error
    return changed


def _fields(options: Declaration) -> dict[str, Any]:
    """Return the options as fields of a spec."""
    fields: dict[str, Any] = {}
    for option, value in options.items():
        try:
            match option, value:
                case "priority", int() | str():
                    fields["priority"] = parse_priority(value)
                case "timeout" | "result_ttl", float():
                    fields[f"{option}_ms"] = milliseconds(value)
                case _:
                    fields[option] = value
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from error
    return fields


def check_exceptions(task: str, reject_on: Any) -> Exceptions:
    """Return *reject_on* if it is what `Declaration` says.

    Raises:
        UsageError: It is not: a worker would find out only when the task fails.
    """
    if isinstance(reject_on, tuple) and all(
        isinstance(kind, type) and issubclass(kind, BaseException) for kind in reject_on
    ):
        return reject_on
    raise UsageError(f"task {task!r}: reject_on is a tuple of exception types, as (ValueError,); got {reject_on!r}")


def check_soft_timeout(spec: TaskSpec, soft_timeout: Any) -> float | None:
    """Return *soft_timeout*, in seconds, if it is what `Declaration` says.

    Raises:
        UsageError: It is no number above 0 and below the task's timeout, which ends what it would warn.
    """
    if soft_timeout is None:
        return None
    timeout = spec.timeout_ms / 1_000
    if isinstance(soft_timeout, int | float) and not isinstance(soft_timeout, bool) and 0 < soft_timeout < timeout:
        return float(soft_timeout)
    raise UsageError(
        f"task {spec.name!r}: soft_timeout must be above 0 and below the timeout of {timeout:g} seconds; "
        f"got {soft_timeout!r}"
    )


def check_redact(task: str, function: Callable[..., Any], redact: Any) -> frozenset[str]:
    """Return the names in *redact* if they are parameters of *function*.

    Raises:
        UsageError: One is not: what it was to hide would be shown.
    """
    if not isinstance(redact, tuple) or not all(isinstance(name, str) for name in redact):
        raise UsageError(f"task {task!r}: redact is a tuple of parameters' names, as ('password',); got {redact!r}")
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return frozenset(redact)
    unknown = [name for name in redact if name not in parameters]
    if unknown:
        raise UsageError(
            f"task {task!r}: redact names {', '.join(unknown)}, which is no parameter; there are "
            f"{', '.join(parameters) or 'none'}"
        )
    return frozenset(redact)
