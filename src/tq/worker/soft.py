"""Soft timeouts of coroutines: a cancellation that arrives in the handler as `SoftTimeout`.

Invariant: one assignment sees at most one `SoftTimeout`, and the cancellation behind it is
taken back: what the handler awaits afterwards is not cancelled by it.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

from tq.app.context import SoftTimeout
from tq.worker.assignment import Assignment


async def softly(coroutine: Coroutine[Any, Any, Any], work: Assignment) -> Any:  # noqa: ANN401 - whatever it returns
    """Run *coroutine*; once ``work.soft_is_due``, the next cancellation of this task is a `SoftTimeout` in it."""
    return await _steps(coroutine, work)


@types.coroutine
def _steps(coroutine: Coroutine[Any, Any, Any], work: Assignment) -> Generator[Any, Any, Any]:
    # What `yield from` does, but for the one exception that is exchanged for another (PEP 380).
    step, value = coroutine.send, None
    while True:
        try:
            awaited = step(value)
        except StopIteration as stop:
            return stop.value
        try:
            step, value = coroutine.send, (yield awaited)
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is thrown into the coroutine, whatever it is
            step, value = coroutine.throw, _exchanged(error, work)


def _exchanged(error: BaseException, work: Assignment) -> BaseException:
    if not isinstance(error, asyncio.CancelledError) or not work.soft_is_due or work.stop is not None:
        return error
    work.soft_is_due = False
    task = asyncio.current_task()
    assert task is not None, "a coroutine is driven by a task"
    task.uncancel()
    return SoftTimeout()
