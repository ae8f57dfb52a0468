"""The real process pool over processes that are none: a child that dies is one failed attempt."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.worker.pools.ends import Ends, running
from tq import App
from tq.testing.loop import run_virtual
from tq.testing.simulated_pool import ChildrenOf, SimulatedProcessPool
from tq.worker.assignment import Failed, Stop
from tq.worker.executor import Executor

app = App("memory:")


@app.task(name="sleep")
async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@asynccontextmanager
async def pool() -> AsyncIterator[tuple[SimulatedProcessPool, Executor, Ends]]:
    executor, ends = Executor(app.registry, "w"), Ends()
    made = SimulatedProcessPool(executor, 1, "w", ChildrenOf(app.registry, random.Random(1)))
    await made.start(ends.finished)
    try:
        yield made, executor, ends
    finally:
        await made.stop()


def test_a_task_runs_in_a_child_and_its_outcome_comes_back() -> None:
    async def main() -> object:
        async with pool() as (made, executor, ends):
            work = running(executor, "sleep", 3.0)
            made.run(work)
            return await ends.of(work)

    assert run_virtual(main()) == b"\xcb\x40\x08\0\0\0\0\0\0"


def test_a_child_that_is_killed_takes_one_attempt_with_it_and_is_replaced() -> None:
    async def main() -> tuple[object, object]:
        async with pool() as (made, executor, ends):
            first, second = running(executor, "sleep", 3.0), running(executor, "sleep", 0.0)
            made.run(first)
            await asyncio.sleep(1)
            assert made.kill_one() == 1
            made.run(second)
            return await ends.of(first), await ends.of(second)

    failed, result = run_virtual(main())

    assert isinstance(failed, Failed)
    assert failed.failure.type == "WorkerProcessDied"
    assert "signal SIGKILL" in failed.failure.message
    assert isinstance(result, bytes)


def test_an_idle_child_that_is_killed_is_replaced() -> None:
    async def main() -> object:
        async with pool() as (made, executor, ends):
            made.kill_one()
            await asyncio.sleep(1)
            work = running(executor, "sleep", 0.0)
            made.run(work)
            return await ends.of(work)

    assert isinstance(run_virtual(main()), bytes)


def test_a_task_that_is_stopped_fails_at_once() -> None:
    async def main() -> object:
        async with pool() as (made, executor, ends):
            work = running(executor, "sleep", 60.0)
            made.run(work)
            await asyncio.sleep(1)
            work.stop = Stop.TIMEOUT
            made.interrupt(work)
            async with asyncio.timeout(1):
                return await ends.of(work)

    failed = run_virtual(main())

    assert isinstance(failed, Failed)
    assert failed.failure.type == "TaskTimeout"
