"""Callers that enqueue one task and wait until it is durable: one of them, then a hundred."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.figures import Measured, Sizes
from bench.noop import TEXT, noop
from bench.scenarios.life import calls
from bench.systems import running_floor, running_tq

CALLERS = 100


async def measure_tq(sizes: Sizes) -> Measured:
    """Measure the product: with fsync, and, of one caller, with durability interval."""

    async def send(number: int) -> None:
        await noop.aenqueue(number, TEXT)

    async def send_blocking(number: int) -> None:
        noop.enqueue(number, TEXT)

    async with running_tq("sync"):
        measured = {
            "one": await _rate(send, sizes.one, 1),
            "hundred": await _rate(send, sizes.hundred, CALLERS),
            "one_blocking": await _rate(send_blocking, sizes.one, 1),
        }
    async with running_tq("interval"):
        return measured | {"one_interval": await _rate(send, 4 * sizes.one, 1)}


async def measure_floor(sizes: Sizes) -> Measured:
    """Measure the floor."""
    async with running_floor() as system:

        async def send(number: int) -> None:
            await system.client.enqueue(calls(range(number, number + 1)))

        return {"one": await _rate(send, sizes.one, 1), "hundred": await _rate(send, sizes.hundred, CALLERS)}


async def _rate(send: Callable[[int], Awaitable[None]], tasks: int, callers: int) -> float:
    # What is made once, a connection for one, is not what is measured.
    await send(0)
    numbers = iter(range(tasks))

    async def call() -> None:
        for number in numbers:
            await send(number)

    began = time.monotonic()
    await asyncio.gather(*(call() for _ in range(callers)))
    return tasks / (time.monotonic() - began)
