"""Runs coroutines in a thread that has no event loop: for ``async def`` handlers in threads and processes.

Invariant: the loop lives as long as its thread, so what a handler opens on it stays usable.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Driver:
    """One thread's event loop, made when it is first needed."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* to its end, in the context of the caller, and return its value."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(coroutine, context=contextvars.copy_context())
        except (KeyboardInterrupt, SystemExit):
            # They break out of the loop, which still has the coroutine: the next run would go on with it.
            self.close()
            raise

    def close(self) -> None:
        """End the loop; what still runs on it is cancelled."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.close()
