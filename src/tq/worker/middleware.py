"""Middleware: what runs around every handler, where the handler runs.

    class Timing(Middleware):
        def before(self, context): ...
        def after(self, context, outcome): ...

Invariant: a hook that is not overridden costs nothing: the chain holds only the others.
"""

import logging
from collections.abc import Iterable

from tq.app.context import TaskContext
from tq.worker.assignment import Outcome

_log = logging.getLogger(__name__)


class Middleware:
    """Override what you need.  One instance serves all tasks of a process, in a thread pool from all threads.

    Hooks are plain functions and should be quick: they run in the event loop for
    ``async def`` handlers.
    """

    def before(self, context: TaskContext) -> None:
        """Run before the handler; raising here fails the attempt as if the handler had raised."""

    def after(self, context: TaskContext, outcome: Outcome) -> None:
        """Run when the attempt has ended: *outcome* is a `Failed`, or the encoded result.

        It cannot change the outcome, and what it raises is logged.
        """


class Chain:
    """The hooks of some middleware: ``before`` in order, ``after`` in the opposite order."""

    __slots__ = ("_after", "_before")

    def __init__(self, middleware: Iterable[Middleware]) -> None:
        layers = list(middleware)
        self._before = [layer.before for layer in layers if type(layer).before is not Middleware.before]
        self._after = [layer.after for layer in reversed(layers) if type(layer).after is not Middleware.after]

    def before(self, context: TaskContext) -> None:
        """Run the hooks that come before the handler."""
        for hook in self._before:
            hook(context)

    def after(self, context: TaskContext, outcome: Outcome) -> None:
        """Run the hooks that come after the handler."""
        for hook in self._after:
            try:
                hook(context, outcome)
            except Exception:  # noqa: BLE001  # another's code
                _log.exception("task %s %s: %r raised", context.name, context.id, hook)
