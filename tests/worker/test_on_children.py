"""The dispatcher over the process pool, on virtual time: what a child that is gone does to the tasks."""

import asyncio
import random
from collections.abc import Callable

from tests.worker.rig import Rig, running
from tests.worker.scripted import record, registry
from tq.core.lease import DeliveryRef
from tq.protocol.messages import Release, Started, Window
from tq.testing.loop import run_virtual
from tq.testing.simulated_pool import ChildrenOf, SimulatedProcessPool
from tq.worker.executor import Executor
from tq.worker.worker import _until_queues_are_empty


async def work(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def children() -> Callable[[Executor, int], SimulatedProcessPool]:
    def make(executor: Executor, concurrency: int) -> SimulatedProcessPool:
        return SimulatedProcessPool(executor, concurrency, "w", ChildrenOf(registry(work=work), random.Random(1)))

    return make


def kill_one(rig: Rig) -> None:
    assert isinstance(rig.pool, SimulatedProcessPool)
    assert rig.pool.kill_one() is not None


async def without_children(rig: Rig) -> None:
    """Kill its only child, and let the pool notice."""
    kill_one(rig)
    while rig.pool.seats:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0.001)


async def run_one(rig: Rig) -> None:
    """Let its kind be proven, so that none is marked before it runs."""
    rig.broker.deliver(1, record("work", 0.0))
    await rig.broker.until(lambda: (1, 0) in rig.broker.done)
    await rig.turns()
    rig.broker.said.clear()


def test_a_task_that_waits_for_the_successor_of_a_killed_child_is_not_marked_as_started() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=1, pool=children()) as rig:
            await run_one(rig)
            await without_children(rig)
            rig.broker.deliver(2, record("work", 1.0))
            await rig.turns()

            assert rig.broker.of(Started) == []
            assert rig.dispatcher.unmarked() == []
            assert [each.started for each in rig.dispatcher.held()] == [[]]
            assert (await rig.broker.next(Started)).tasks == [DeliveryRef(2, 0)]
            await rig.broker.until(lambda: (2, 0) in rig.broker.done)

    run_virtual(main())


def test_a_task_given_to_a_child_that_has_just_died_goes_back_to_the_broker_unharmed() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=1, pool=children()) as rig:
            kill_one(rig)
            rig.broker.deliver(2, record("work", 1.0))

            assert (await rig.broker.next(Release)).tasks == [DeliveryRef(2, 0)]
            assert rig.broker.failed == {}
            assert rig.dispatcher.holdings.is_empty

    run_virtual(main())


def test_what_was_marked_for_a_child_that_dies_goes_back_to_the_broker() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=1, pool=children()) as rig:
            await run_one(rig)
            kill_one(rig)
            await asyncio.sleep(0)
            rig.broker.deliver(2, record("work", 1.0), alone=True)

            assert (await rig.broker.next(Started)).tasks == [DeliveryRef(2, 0)]
            assert (await rig.broker.next(Release)).tasks == [DeliveryRef(2, 0)]

    run_virtual(main())


def test_a_suspect_that_comes_while_there_is_no_child_goes_back_unmarked() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=1, pool=children()) as rig:
            await run_one(rig)
            await without_children(rig)
            rig.broker.deliver(2, record("work", 1.0), alone=True)

            assert (await rig.broker.next(Release)).tasks == [DeliveryRef(2, 0)]
            assert rig.broker.of(Started) == []

    run_virtual(main())


def test_what_is_marked_and_waits_for_a_seat_goes_back_when_a_seat_is_gone() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=2, pool=children()) as rig:
            rig.broker.deliver(1, record("work", 60.0))
            await rig.broker.until(lambda: bool(rig.broker.of(Started)))
            rig.broker.deliver(2, record("work", 60.0), record("work", 60.0), alone=True)
            await asyncio.sleep(1)
            kill_one(rig)

            assert (await rig.broker.next(Release)).tasks == [DeliveryRef(2, 1)]

    run_virtual(main())


def test_the_window_is_closed_while_there_is_no_child_and_opened_for_the_next() -> None:
    async def main() -> None:
        async with running(work=work, concurrency=1, prefetch=0, pool=children()) as rig:
            await rig.turns()
            kill_one(rig)

            await rig.broker.until(lambda: [window.tasks for window in rig.broker.of(Window)] == [1, 0, 1])

    run_virtual(main())


def test_a_burst_does_not_end_while_a_child_is_being_replaced() -> None:
    async def main() -> tuple[bool, bool]:
        async with running(work=work, concurrency=1, pool=children()) as rig:
            await without_children(rig)
            burst = asyncio.create_task(_until_queues_are_empty(rig.dispatcher, rig.link))
            for _ in range(5):
                await rig.turns()
            was_done = burst.done()
            await burst
            return was_done, rig.pool.seats == 1

    assert run_virtual(main()) == (False, True)
