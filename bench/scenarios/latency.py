"""Latency on an idle machine: a hundred tasks a second, from enqueue to handler start and to the result.

The times are of one clock, the machine's monotonic one, which all processes share.  The
floor keeps no results, so its worker is a second connection of this process.
"""

import asyncio
import time
from statistics import quantiles

import msgspec

from bench.figures import Measured, Sizes
from bench.floor import Kind
from bench.floor_peers import FloorWorker
from bench.noop import TEXT, started_at
from bench.systems import running_floor, running_tq

EVERY_S = 0.01
_WARM_UP = 20


async def measure_tq(sizes: Sizes) -> Measured:
    """Measure the product: with fsync, and to the start with durability interval."""
    starts, results = await _tq("sync", sizes.latency)
    starts_interval, _ = await _tq("interval", sizes.latency)
    return {
        "start_p50": _percentile(starts, 50),
        "start_p99": _percentile(starts, 99),
        "result_p50": _percentile(results, 50),
        "result_p99": _percentile(results, 99),
        "start_p50_interval": _percentile(starts_interval, 50),
    }


async def measure_floor(sizes: Sizes) -> Measured:
    """Measure the floor."""
    sent: list[float] = []
    starts: list[float] = []

    def handler(number: int, _text: str) -> None:
        starts.append(time.monotonic() - sent[number])

    async with running_floor() as system:
        await FloorWorker(handler).run(system.port)
        for number in range(sizes.latency + _WARM_UP):
            sent.append(time.monotonic())
            await system.client.request(Kind.ENQUEUE, msgspec.msgpack.encode([([number, TEXT], {})]))
            await asyncio.sleep(EVERY_S)
        await system.until_done(sizes.latency + _WARM_UP)
    starts = starts[_WARM_UP:]
    return {"start_p50": _percentile(starts, 50), "start_p99": _percentile(starts, 99)}


async def _tq(durability: str, tasks: int) -> tuple[list[float], list[float]]:
    starts: list[float] = []
    results: list[float] = []

    async def call(number: int) -> None:
        sent_at = time.monotonic()
        handle = await started_at.aenqueue(number, TEXT)
        started = await handle
        starts.append(started - sent_at)
        results.append(time.monotonic() - sent_at)

    async with running_tq(durability) as system:
        with system.worker():
            await system.until_served()
            async with asyncio.TaskGroup() as group:
                for number in range(tasks + _WARM_UP):
                    group.create_task(call(number))
                    await asyncio.sleep(EVERY_S)
    return starts[_WARM_UP:], results[_WARM_UP:]


def _percentile(seconds: list[float], percent: int) -> float:
    return quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1_000
