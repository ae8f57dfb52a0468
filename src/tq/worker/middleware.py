"""The chain of an app's middleware, ready to be run around a handler.

Invariant: a hook that is not overridden costs nothing: the chain holds only the others.
"""

import logging
from collections.abc import Iterable

from tq.app.context import TaskContext
from tq.app.middleware import Middleware
from tq.worker.assignment import Failed, Outcome

_log = logging.getLogger(__name__)


class Chain:
    """The hooks of some middleware: ``before`` in order, ``after`` in the opposite order."""

    __slots__ = ("_after", "_before")

    def __init__(self, middleware: Iterable[Middleware]) -> None:
        layers = list(middleware)
        self._before = [layer.before for layer in layers if type(layer).before is not Middleware.before]
        self._after = [
            (layer.after, type(layer)) for layer in reversed(layers) if type(layer).after is not Middleware.after
        ]

    def before(self, context: TaskContext) -> None:
        """Run the hooks that come before the handler."""
        for hook in self._before:
            hook(context)

    def after(self, context: TaskContext, outcome: Outcome) -> None:
        """Run the hooks that come after the handler."""
        for hook, kind in self._after:
            try:
                hook(context, outcome.failure if isinstance(outcome, Failed) else None)
            except BaseException:  # noqa: BLE001  # another's code; the task has ended, and how stands
                _log.exception("task %s %s: the middleware %s raised", context.name, context.id, kind.__qualname__)
