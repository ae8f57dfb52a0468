"""Soft timeouts of coroutines: one cancellation becomes a `SoftTimeout`, and nothing is left of it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.worker.pools.ends import running
from tests.worker.scripted import registry
from tq.app.context import SoftTimeout
from tq.worker.assignment import Assignment, Stop
from tq.worker.executor import Executor
from tq.worker.soft import softly


def an_assignment() -> Assignment:
    return running(Executor(registry(work=lambda: None), "w"), "work")


async def reminded(handler: Coroutine[Any, Any, Any], work: Assignment) -> Any:
    """Run *handler* until it waits, cancel it with a reminder due, and return what it returns."""
    task = asyncio.create_task(softly(handler, work))
    await asyncio.sleep(0)
    work.soft_is_due = True
    task.cancel()
    return await task


async def test_what_it_returns_and_raises_comes_through_unchanged() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no good")

    async def returns() -> int:
        await asyncio.sleep(0)
        return 4

    assert await softly(returns(), an_assignment()) == 4
    with pytest.raises(ValueError, match="no good"):
        await softly(fails(), an_assignment())


async def test_what_it_awaits_after_the_reminder_is_not_cancelled_by_it() -> None:
    async def handler() -> tuple[int, str]:
        try:
            await asyncio.sleep(60)
        except SoftTimeout:
            task = asyncio.current_task()
            assert task is not None
            async with asyncio.timeout(10):
                return task.cancelling(), await asyncio.sleep(0, "done")
        return 0, "late"

    assert await reminded(handler(), an_assignment()) == (0, "done")


async def test_the_tasks_of_its_group_end_with_it() -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("child")

    async def handler() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0)
        except SoftTimeout:
            return "in order"
        return "late"

    work = an_assignment()
    task = asyncio.create_task(softly(handler(), work))
    for _ in range(4):
        await asyncio.sleep(0)
    work.soft_is_due = True
    task.cancel()

    assert (await task, ended) == ("in order", ["child"])


async def test_a_cancellation_without_a_reminder_stays_one() -> None:
    seen: list[type[BaseException]] = []

    async def handler() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            seen.append(type(error))
            raise

    work = an_assignment()
    for stop, is_due in ((None, False), (Stop.LEAVING, True)):
        task = asyncio.create_task(softly(handler(), work))
        await asyncio.sleep(0)
        work.stop, work.soft_is_due = stop, is_due
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert seen == [asyncio.CancelledError] * 2
