"""The real process pool over processes that are none: a child that dies is one failed attempt."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.worker.pools.ends import Ends, running
from tq import App
from tq.core.errors import ConfigError
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
    await made.start(ends)
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
            await ends.of(first)
            await ends.until(lambda: made.seats == 1)
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


def test_what_a_child_was_given_and_had_not_begun_comes_back_when_it_dies() -> None:
    async def main() -> tuple[bool, bool]:
        async with pool() as (made, executor, ends):
            work = running(executor, "sleep", 0.0)
            made.run(work)
            made.kill_one()
            await ends.until(lambda: ends.returns == [work])
            return work.has_begun, ends.has(work)

    assert run_virtual(main()) == (False, False)


def test_a_first_child_that_is_killed_before_it_is_ready_is_replaced() -> None:
    async def main() -> int:
        executor, ends = Executor(app.registry, "w"), Ends()
        made = SimulatedProcessPool(executor, 1, "w", ChildrenOf(app.registry, random.Random(1)))
        starting = asyncio.create_task(made.start(ends))
        await asyncio.sleep(0.001)
        made.kill_one()
        await starting
        await made.stop()
        return len(made._processes)

    assert run_virtual(main()) == 2


def test_first_children_that_are_killed_again_and_again_end_the_start() -> None:
    async def main() -> None:
        executor, ends = Executor(app.registry, "w"), Ends()
        made = SimulatedProcessPool(executor, 1, "w", ChildrenOf(app.registry, random.Random(1)))
        starting = asyncio.create_task(made.start(ends))
        while not starting.done():
            await asyncio.sleep(0.005)
            made.kill_one()
        with pytest.raises(ConfigError, match="before it was ready"):
            await starting

    run_virtual(main())


def test_a_successor_that_dies_before_it_is_ready_is_replaced_after_longer_and_longer_waits() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        starts: list[float] = []
        async with pool() as (made, _, ends):
            for _ in range(8):
                number = len(made._processes)
                made._processes[-1]._end(1)
                while len(made._processes) == number:  # noqa: ASYNC110 - nothing else tells
                    await asyncio.sleep(0.001)
                starts.append(loop.time())
            await ends.until(lambda: made.seats == 1)
        return [round(later - earlier) for earlier, later in itertools.pairwise(starts)]

    assert run_virtual(main()) == [1, 2, 4, 8, 16, 30, 30]
