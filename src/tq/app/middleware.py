"""Middleware: what an app has run around every handler, where the handler runs.

    began: ContextVar[float] = ContextVar("began")

    class Timing(Middleware):
        def before(self, context):
            began.set(time.monotonic())

        def after(self, context, failure):
            observe(context.name, time.monotonic() - began.get())

    app = App(middleware=[Timing()])

Invariant: a hook sees the context of the task that it is called for, also as the current one.
"""

from tq.app.context import TaskContext
from tq.core.outcome import TaskFailure


class Middleware:
    """Override what you need, and give the app an instance.

    One instance serves all tasks of a process, at the same time: what belongs to one task
    goes into a `contextvars.ContextVar`.  Hooks are plain functions and should be quick:
    for an ``async def`` handler they run in the event loop.
    """

    def before(self, context: TaskContext) -> None:
        """Run before the handler; what is raised here fails the attempt, as if the handler had raised it."""

    def after(self, context: TaskContext, failure: TaskFailure | None) -> None:
        """Run when the attempt has ended, *failure* saying how if it failed.

        It cannot change the outcome, and what it raises is logged.
        """
