"""Runs coroutines in a thread that has no event loop: for ``async def`` handlers in threads and processes.

Invariant: the loop lives as long as its thread, so what a handler opens on it stays usable.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Driver:
    """One thread's event loop, made when it is first needed."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._task: asyncio.Task[Any] | None = None

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* to its end, in a copy of the caller's context, and return its value.

        Raises:
            KeyboardInterrupt, SystemExit: Raised anywhere in the loop, they end the
                coroutine, by cancellation; the traceback tells where it stood.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()
        self._task = task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit) as interruption:
            if task.done():
                # The coroutine raised it; asked for here, or its task would complain that nobody did.
                task.exception()
                raise
            # It broke out of the loop, which still has the coroutine: the next run would go on with it.
            task.cancel()
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError as cancelled:
                interruption.with_traceback(cancelled.__traceback__)
            raise interruption  # noqa: TRY201  # a bare raise would bring its first traceback back
        finally:
            self._task = None

    def cancel(self) -> bool:
        """Cancel the coroutine that runs; return False if there is none.  Any thread may call it, and a signal."""
        task = self._task
        if task is None:
            return False
        # On a task that has ended meanwhile it has no effect.
        task.get_loop().call_soon_threadsafe(task.cancel)
        return True

    def close(self) -> None:
        """End the loop; what still runs on it is cancelled."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.close()
