"""A task's life in bulk: enqueued in frames of 500 with no worker, then drained by one worker process.

The broker's main-thread CPU over both is what a task costs the one thread that bounds it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from bench.figures import Measured, Sizes
from bench.floor_peers import Call
from bench.noop import TEXT, noop, noop_kept
from bench.systems import Floor, Tq, main_thread_seconds, running_floor, running_tq
from tq import DeclaredTask

FRAME_TASKS = 500
FRAMES_IN_FLIGHT = 8


class Life(NamedTuple):
    """Tasks a second enqueued and drained, and microseconds of the broker's main thread for each task."""

    bulk: float
    drain: float
    cpu: float


async def measure_tq(sizes: Sizes) -> Measured:
    """Measure with the result off, then with it kept."""
    off = await _life_of(noop, sizes.bulk)
    kept = await _life_of(noop_kept, sizes.bulk)
    return {"bulk": off.bulk, "drain": off.drain, "life": off.cpu, "drain_kept": kept.drain, "life_kept": kept.cpu}


async def measure_floor(sizes: Sizes) -> Measured:
    """Measure the floor."""
    async with running_floor() as system:

        async def send(numbers: range) -> None:
            await system.client.enqueue(calls(numbers))

        life = await _measure(system, send, sizes.bulk)
    return {"bulk": life.bulk, "drain": life.drain, "life": life.cpu}


def calls(numbers: range) -> list[Call]:
    """Return calls as the floor takes them."""
    return [([number, TEXT], {}) for number in numbers]


async def in_frames(send: Callable[[range], Awaitable[object]], tasks: int) -> None:
    """Send *tasks* in frames, some of them in flight at a time."""
    starts = iter(range(0, tasks, FRAME_TASKS))

    async def sender() -> None:
        for start in starts:
            await send(range(start, min(start + FRAME_TASKS, tasks)))

    await asyncio.gather(*(sender() for _ in range(FRAMES_IN_FLIGHT)))


async def _life_of(task: DeclaredTask[[int, str], Any, Any], tasks: int) -> Life:
    async def send(numbers: range) -> None:
        await task.aenqueue_many([(number, TEXT) for number in numbers])

    async with running_tq("sync") as system:
        return await _measure(system, send, tasks)


async def _measure(system: Tq | Floor, send: Callable[[range], Awaitable[object]], tasks: int) -> Life:
    cpu = -main_thread_seconds(system.broker_pid)
    began = time.monotonic()
    await in_frames(send, tasks)
    enqueued = time.monotonic() - began
    cpu += main_thread_seconds(system.broker_pid)

    await system.hold()
    with system.worker():
        await system.until_served()
        cpu -= main_thread_seconds(system.broker_pid)
        began = time.monotonic()
        await system.let_go()
        await system.until_done(tasks)
        drained = time.monotonic() - began
        cpu += main_thread_seconds(system.broker_pid)
    return Life(tasks / enqueued, tasks / drained, cpu / tasks * 1e6)
