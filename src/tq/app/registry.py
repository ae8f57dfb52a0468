"""The registry: the tasks that a program declares, by name, as a worker needs them.

Invariant: a name has one handler.  The registry grows while modules are imported and is
read by any thread afterwards.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tq.app.calls import Arguments, CallCodec, Signature, signature_of
from tq.app.codec import codec_named
from tq.app.lifespan import Hooks, provided_names, provided_types
from tq.app.middleware import Middleware
from tq.core.errors import UsageError
from tq.core.task import TaskSpec


class Handler:
    """The code of one task, and how its arguments and its result travel.

    ``function`` is what a worker calls, and awaits if ``is_async``; an exception of a
    type in ``reject_on`` means that trying again is of no use; after ``soft_timeout_s``
    `SoftTimeout` is raised in it.  The values of the parameters in ``redact`` are in no
    text of ours; those in ``provided`` are given by hooks of the worker.
    """

    __slots__ = (
        "_calls",
        "_signature",
        "function",
        "is_async",
        "provided",
        "redact",
        "reject_on",
        "soft_timeout_s",
        "spec",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        spec: TaskSpec,
        reject_on: tuple[type[BaseException], ...] = (),
        soft_timeout_s: float | None = None,
        redact: frozenset[str] = frozenset(),
    ) -> None:
        self.function = function
        self.spec = spec
        self.is_async = inspect.iscoroutinefunction(function)
        self.reject_on = reject_on
        self.soft_timeout_s = soft_timeout_s
        self.redact = redact
        self.provided = provided_names(f"task {spec.name!r}", function)
        # Both are made at the first use: an annotation may name what is defined further down its module.
        self._signature: Signature | None = None
        self._calls: dict[str, CallCodec] = {}

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    def provided_types(self) -> dict[str, Any]:
        """Return the annotations of the parameters in ``provided``.

        Raises:
            UsageError: One has none, or they cannot be resolved.
        """
        return provided_types(f"task {self.name!r}", self.function) if self.provided else {}

    def decode(self, payload: bytes, codec: str) -> Arguments:
        """Return the (args, kwargs) in *payload*, as the annotations have them.

        Raises:
            InvalidArguments: They do not fit the function.
            UsageError: There is no such codec.
        """
        # Not by `calls`: this and the next are the two steps that every task's life takes here.
        return (self._calls.get(codec) or self.calls(codec)).decode(payload)

    def encode_result(self, value: object, codec: str) -> bytes:
        """Return what the function returned, as bytes.

        Raises:
            NotSerializable: It has no encoding.
            UsageError: There is no such codec.
        """
        return (self._calls.get(codec) or self.calls(codec)).encode_result(value)

    def decode_result(self, result: bytes, codec: str) -> Any:
        """Return a result as the function's return annotation has it.

        Raises:
            UsageError: It is none of that type, or there is no such codec.
        """
        return self.calls(codec).decode_result(result)

    def calls(self, codec: str) -> CallCodec:
        """Return the codec of the function's calls in *codec* (made once).

        Raises:
            UsageError: There is no such codec, or it cannot decode an annotation.
        """
        known = self._calls.get(codec)
        if known is not None:
            return known
        # Two threads may both come here: they make the same, and one of the two is kept.
        if self._signature is None:
            self._signature = signature_of(self.name, self.function, self.redact)
        return self._calls.setdefault(codec, CallCodec(self._signature, codec_named(codec)))


class Registry:
    """The handlers of an app, by the names of their tasks, the ``middleware`` around them all, and the ``hooks``."""

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        self.middleware = tuple(middleware)
        self.hooks = Hooks()
        self._handlers: dict[str, Handler] = {}

    def add(self, handler: Handler) -> None:
        """Add *handler*.  The same declaration, imported again, replaces its earlier self.

        Raises:
            UsageError: Another task has the name.
        """
        earlier = self._handlers.get(handler.name)
        if earlier is not None and not _same_declaration(earlier.function, handler.function):
            raise UsageError(
                f"two tasks are called {handler.name!r}: {_place(earlier.function)} and "
                f"{_place(handler.function)}. Give one of them another name with name=..."
            )
        self._handlers[handler.name] = handler

    def get(self, name: str) -> Handler | None:
        """Return the handler of task *name*, or None."""
        return self._handlers.get(name)

    def check(self) -> None:
        """Resolve every task's annotations now; a worker does so at its start.

        Raises:
            UsageError: An annotation cannot be resolved or decoded, or nobody provides what a task needs.
        """
        for handler in self._handlers.values():
            handler.calls(handler.spec.codec)
        self.hooks.check({handler.name: handler.provided_types() for handler in self._handlers.values()})

    def __iter__(self) -> Iterator[Handler]:
        return iter(list(self._handlers.values()))

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, name: object) -> bool:
        return name in self._handlers


def _same_declaration(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    # A reloaded module, or one imported under two names, has the function at the same place;
    # a cell of a notebook that runs again has it at a new one, and means to replace it.
    main = sys.modules.get(other.__module__)
    interactive = other.__module__ == "__main__" and not hasattr(main, "__file__")
    return interactive or _place(one) == _place(other)


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)
