"""What a worker's process does before its first task and after its last, and what it gives to handlers.

    @app.on_worker_start
    async def database() -> AsyncIterator[Database]:
        async with connect() as opened:
            yield opened                        # the rest runs when the process stops

    @app.task
    async def count(table: str, *, database: Database = PROVIDED) -> int:
        return await database.count(table)

A hook provides what it is annotated to return or to yield; a keyword parameter with the
default `PROVIDED` is given the value of its annotation, and is none of the task's arguments.

Invariant: an annotation has one hook that provides it, so what a parameter gets is plain
from the two annotations.
"""

import collections.abc
import inspect
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from tq.core.errors import UsageError

_YIELDING = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.Iterator,
)


class _Provided:
    """The default of a parameter that is provided."""

    def __repr__(self) -> str:
        return "PROVIDED"


PROVIDED: Any = _Provided()
"""The default of a keyword parameter that workers give a value, by its annotation."""


class Hook:
    """One function that runs when a worker's process starts or stops."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise UsageError(f"{function!r} cannot be a hook of a worker: decorate a function of a module")
        self.function = function
        self.name = f"{function.__module__}.{function.__qualname__}"
        needed = provided_names(self.name, function)
        if needed != inspect.signature(function).parameters.keys():
            raise UsageError(
                f"the hook {self.name}: nobody calls it with arguments; a parameter is keyword-only, "
                "with the default PROVIDED, and gets what an earlier hook provides"
            )
        self.needs_nothing = not needed

    @property
    def is_generator(self) -> bool:
        """Whether what comes after its ``yield`` runs at the stop."""
        return inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function)

    @property
    def provides(self) -> Any:
        """The annotation of the value that it returns or yields; None if it provides nothing.

        Raises:
            UsageError: Its annotations cannot be resolved.
        """
        returned = resolved(self.name, self.function).get("return")
        if returned is type(None):
            return None
        if self.is_generator:
            if typing.get_origin(returned) not in _YIELDING:
                return None
            returned = typing.get_args(returned)[0]
        return None if returned is type(None) else returned


class Hooks:
    """The hooks of an app, in the order in which they were declared."""

    def __init__(self) -> None:
        self.at_start: list[Hook] = []
        self.at_stop: list[Hook] = []

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not self.at_start and not self.at_stop

    def check(self, needed: Mapping[str, Mapping[str, Any]]) -> None:
        """Find a provider of all that is *needed*: by task, the annotations of its provided parameters.

        Raises:
            UsageError: There is none, or there are two of one annotation, or a hook comes before
                the one whose value it needs.
        """
        found: dict[Any, str] = {}
        for hook in self.at_start:
            _check_provided(f"the hook {hook.name}", provided_types(hook.name, hook.function), found)
            kind = hook.provides
            if kind is None:
                continue
            if kind in found:
                raise UsageError(
                    f"the hooks {found[kind]} and {hook.name} both provide {spelled(kind)}; "
                    'tell them apart by Annotated[..., "a word"]'
                )
            found[kind] = hook.name
        for hook in self.at_stop:
            _check_provided(f"the hook {hook.name}", provided_types(hook.name, hook.function), found)
        for task, types in needed.items():
            _check_provided(f"task {task!r}", types, found)


def _check_provided(who: str, types: Mapping[str, Any], found: Mapping[Any, str]) -> None:
    for name, kind in types.items():
        if kind not in found:
            raise UsageError(
                f"{who}: no hook provides {spelled(kind)} for its parameter {name!r}; "
                f"there must be an @app.on_worker_start before it that is annotated to return or yield one"
            )


def provided_names(who: str, function: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters of *function* that are provided.

    Raises:
        UsageError: One is not keyword-only: a caller's argument could take its place.
    """
    found = [p for p in inspect.signature(function).parameters.values() if p.default is PROVIDED]
    for parameter in found:
        if parameter.kind is not Parameter.KEYWORD_ONLY:
            raise UsageError(f"{who}: its parameter {parameter.name!r} is provided, so it must come after a *")
    return frozenset(parameter.name for parameter in found)


def provided_types(who: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters of *function* that are provided.

    Raises:
        UsageError: One has none, or they cannot be resolved.
    """
    names = provided_names(who, function)
    if not names:
        return {}
    hints = resolved(who, function)
    for name in names - hints.keys():
        raise UsageError(f"{who}: its parameter {name!r} needs an annotation: by it is known what to provide")
    return {name: hints[name] for name in sorted(names)}


def resolved(who: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of *function*, those given as text resolved.

    Raises:
        UsageError: One names what does not exist at run time.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise UsageError(
            f"{who}: its annotations cannot be resolved ({error}); "
            "arguments are checked against them, so import the types they name at run time, "
            "not under TYPE_CHECKING, and at the top of the module"
        ) from error


def spelled(kind: Any) -> str:
    """Return an annotation as one would write it."""
    return kind.__qualname__ if type(kind) is type else str(kind).replace("typing.", "")
