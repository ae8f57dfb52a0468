"""The async pool: coroutines as tasks of the loop."""

import asyncio

import msgspec
import pytest

from tests.worker.pools.ends import Ends, running
from tests.worker.rig import Gate
from tests.worker.scripted import registry, soft
from tq.app.context import SoftTimeout
from tq.worker.assignment import Assignment, Failed, Stop
from tq.worker.executor import Executor
from tq.worker.pools.aio import AsyncPool


async def test_a_coroutine_is_a_task_of_the_loop_named_as_its_task() -> None:
    ends = Ends()

    async def work() -> list[object]:
        task = asyncio.current_task()
        assert task is not None
        return [task.get_name()]

    executor = Executor(registry(work=work), "w")
    pool = AsyncPool(executor, 1)
    await pool.start(ends)
    assignment = running(executor, "work")

    pool.run(assignment)
    outcome = await ends.of(assignment)
    await pool.stop()

    assert isinstance(outcome, bytes)
    assert msgspec.msgpack.decode(outcome) == ["work"]


async def test_a_plain_function_is_left_to_the_threads() -> None:
    ends = Ends()
    executor = Executor(registry(work=lambda: 1), "w")
    pool = AsyncPool(executor, 1)
    await pool.start(ends)
    assignment = running(executor, "work")

    pool.run(assignment)
    outcome = await ends.of(assignment)
    patience = pool.interrupt(assignment)
    await pool.stop()

    assert outcome == msgspec.msgpack.encode(1)
    assert patience == 0


async def entered(gate: Gate, *, seats: int) -> tuple[Ends, AsyncPool, Assignment]:
    """Start a pool with a handler that waits at *gate*."""
    ends = Ends()
    executor = Executor(registry(gate=gate.__call__), "w")
    pool = AsyncPool(executor, seats)
    await pool.start(ends)
    assignment = running(executor, "gate")
    pool.run(assignment)
    await gate.until(lambda gate: gate.entered == 1)
    return ends, pool, assignment


async def test_a_coroutine_is_cancelled_and_has_time_to_put_things_in_order() -> None:
    ends, pool, assignment = await entered(Gate(), seats=1)

    assignment.stop = Stop.TIMEOUT
    patience = pool.interrupt(assignment)
    outcome = await ends.of(assignment)
    await pool.stop()

    assert patience > 0
    assert isinstance(outcome, Failed)
    assert outcome.failure.type == "TaskTimeout"


async def test_a_coroutine_deaf_to_its_cancellation_keeps_its_seat_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    gate.heeds_cancellation = False
    ends, pool, assignment = await entered(gate, seats=2)

    assignment.stop = Stop.TIMEOUT
    pool.interrupt(assignment)
    pool.abandon(assignment)
    await gate.until(lambda gate: gate.cancelled == 1)
    stuck, seats = pool.stuck, pool.seats
    gate.open()
    await ends.until(lambda: pool.seats == 2)
    await pool.stop()

    assert (stuck, seats) == (["gate"], 1)
    assert pool.stuck == []
    assert "does not heed its cancellation; it keeps 1 of 2 seats until the handler returns, 1 are left" in caplog.text


async def test_one_cancelled_before_its_first_step_ends_too() -> None:
    ends, gate = Ends(), Gate()
    executor = Executor(registry(gate=gate.__call__), "w")
    pool = AsyncPool(executor, 1)
    await pool.start(ends)
    assignment = running(executor, "gate")

    pool.run(assignment)
    assignment.stop = Stop.LEAVING
    pool.interrupt(assignment)
    outcome = await ends.of(assignment)
    await pool.stop()

    assert isinstance(outcome, Failed)
    assert outcome.failure.type == "WorkerStopped"
    assert gate.entered == 0
    assert len(ends.outcomes) == 1


async def test_a_coroutine_is_reminded_where_it_awaits_and_may_go_on() -> None:
    ends, inside = Ends(), asyncio.Event()

    @soft(1)
    async def work() -> str:
        try:
            inside.set()
            await asyncio.sleep(60)
        except SoftTimeout:
            await asyncio.sleep(0)
            return "in order"
        return "late"

    executor = Executor(registry(work=work), "w")
    pool = AsyncPool(executor, 1)
    await pool.start(ends)
    assignment = running(executor, "work")
    pool.run(assignment)
    await inside.wait()

    assert pool.remind(assignment)
    outcome = await ends.of(assignment)
    await pool.stop()

    assert outcome == msgspec.msgpack.encode("in order")


async def test_a_coroutine_that_is_reminded_before_its_first_step_hears_of_it() -> None:
    ends = Ends()

    @soft(1)
    async def work() -> None:
        await asyncio.sleep(60)

    executor = Executor(registry(work=work), "w")
    pool = AsyncPool(executor, 1)
    await pool.start(ends)
    assignment = running(executor, "work")

    pool.run(assignment)
    assert pool.remind(assignment)
    outcome = await ends.of(assignment)
    await pool.stop()

    assert isinstance(outcome, Failed)
    assert (outcome.failure.type, outcome.failure.message) == (
        "SoftTimeout", "it ran longer than its soft timeout of 1 s",
    )  # fmt: skip
    assert "in work" in outcome.failure.traceback
