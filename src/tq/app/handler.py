"""Tasks as classes: for a handler that needs something set up once, such as a connection pool.

`TaskHandler.run` is the task; `setup` runs before the first `run` of a process (of an
event loop, where it is asynchronous: what it opens often belongs to the loop).

Invariant: `run` never starts before a `setup` has succeeded; one that raises fails that
attempt and is tried again by the next.
"""

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from tq.app.options import Declaration, Exceptions
from tq.core.errors import UsageError
from tq.core.retry import RetryPolicy


class TaskHandler:
    """A task with state: subclass it, then ``send = app.register(Send())``.

    The class attributes are the options of `App.task`; those it does not set are the defaults.
    ``run`` may be ``def`` or ``async def`` and has the task's arguments.

        class Send(TaskHandler):
            queue = "mail"

            async def setup(self) -> None:
                self.smtp = await connect()

            async def run(self, to: str, body: str) -> str:
                return await self.smtp.send(to, body)
    """

    name: ClassVar[str]
    queue: ClassVar[str]
    priority: ClassVar[int | str]
    retry: ClassVar[RetryPolicy]
    timeout: ClassVar[float]
    result_ttl: ClassVar[float]
    max_losses: ClassVar[int]
    codec: ClassVar[str]
    soft_timeout: ClassVar[float]
    reject_on: ClassVar[Exceptions]
    redact: ClassVar[tuple[str, ...]]

    run: Callable[..., Any]

    def setup(self) -> Any:
        """Prepare this process for `run`; ``async def`` is allowed if ``run`` is ``async def``."""


def options_of(handler: TaskHandler) -> dict[str, Any]:
    """Return the options of `App.task` that *handler* sets."""
    return {name: getattr(handler, name) for name in Declaration.__annotations__ if hasattr(handler, name)}


def function_of(handler: TaskHandler) -> Callable[..., Any]:
    """Return what runs *handler*: its ``run``, set up before the first time.

    Raises:
        UsageError: It has no ``run``, or an asynchronous ``setup`` for a plain ``run``.
    """
    kind = type(handler)
    run: Callable[..., Any] | None = getattr(handler, "run", None)
    if run is None:
        raise UsageError(f"{kind.__qualname__} has no method run: it is what the task does")
    if kind.setup is TaskHandler.setup:
        return run
    if inspect.iscoroutinefunction(run):
        return _set_up_in_each_loop(handler.setup, run)
    if inspect.iscoroutinefunction(handler.setup):
        raise UsageError(f"{kind.__qualname__}.setup is async def: then run must be async def too")
    return _set_up_in_each_process(handler.setup, run)


def _set_up_in_each_process(setup: Callable[[], Any], run: Callable[..., Any]) -> Callable[..., Any]:
    lock = threading.Lock()
    ready_in: int | None = None

    @functools.wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal ready_in
        if ready_in != os.getpid():
            with lock:
                if ready_in != os.getpid():
                    setup()
                    ready_in = os.getpid()
        return run(*args, **kwargs)

    return call


def _set_up_in_each_loop(setup: Callable[[], Any], run: Callable[..., Any]) -> Callable[..., Any]:
    # The lock is made with each loop's first call: a lock belongs to the loop that waits on it.
    lock: asyncio.Lock | None = None
    entered: asyncio.AbstractEventLoop | None = None
    ready_in: asyncio.AbstractEventLoop | None = None

    @functools.wraps(run)
    async def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal lock, entered, ready_in
        loop = asyncio.get_running_loop()
        if ready_in is not loop:
            if lock is None or entered is not loop:
                lock, entered = asyncio.Lock(), loop
            async with lock:
                if ready_in is not loop:
                    preparing = setup()
                    if inspect.isawaitable(preparing):
                        await preparing
                    ready_in = loop
        return await run(*args, **kwargs)

    return call
