"""Both at once: one producer enqueues in frames of 500 while one worker process drains."""

import time
from collections.abc import Awaitable, Callable

from bench.figures import Measured, Sizes
from bench.noop import TEXT, noop
from bench.scenarios.life import calls, in_frames
from bench.systems import Floor, Tq, running_floor, running_tq


async def measure_tq(sizes: Sizes) -> Measured:
    """Measure the product, results off."""

    async def send(numbers: range) -> None:
        await noop.aenqueue_many([(number, TEXT) for number in numbers])

    async with running_tq("sync") as system:
        return {"both": await _measure(system, send, sizes.both)}


async def measure_floor(sizes: Sizes) -> Measured:
    """Measure the floor."""
    async with running_floor() as system:

        async def send(numbers: range) -> None:
            await system.client.enqueue(calls(numbers))

        return {"both": await _measure(system, send, sizes.both)}


async def _measure(system: Tq | Floor, send: Callable[[range], Awaitable[object]], tasks: int) -> float:
    with system.worker():
        await system.until_served()
        began = time.monotonic()
        await in_frames(send, tasks)
        await system.until_done(tasks)
        return tasks / (time.monotonic() - began)
