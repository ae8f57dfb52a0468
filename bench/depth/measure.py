"""What one shape costs: rates, memory and restarts of a deep broker beside those of an empty one."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench.depth.broker import DeepBroker
from bench.depth.shapes import KEPT_S, Shape
from tq.testing.programs import ProgramError

# So many tasks measure a rate once; a rate is the median of so many.
RATE_TASKS = 200_000
_TIMES = 3
# Of the disk that deep rows took, so much may be left after a purge or their expiry.
LEFT = 0.1
# A store without rows has its log and its own files.
LEFT_MIB = 16.0
RECLAIM_S_MAX = 300.0


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one shape; rates in tasks a second, rooms in MiB, times in seconds.

    ``holds``: as `Shape` has it.  ``rss_peak_mib``: the most while the broker was filled and its rates were
    measured.  ``restart_s``: from the start of the process, after a kill, to its first answer.
    ``restore_s``: the part of it in which the engine takes up the rows.  ``reclaimed_s``:
    from the purge, or the expiry of the last result, until the disk holds a tenth; None if it never did.
    """

    shape: str
    holds: str
    tasks: int
    enqueue_empty: float
    enqueue_deep: float
    drain_empty: float
    drain_deep: float
    rss_empty_mib: float
    rss_deep_mib: float
    rss_peak_mib: float
    restart_empty_s: float
    restart_deep_s: float
    restore_s: float
    disk_deep_mib: float
    disk_left_mib: float
    reclaimed_s: float | None


async def measure(
    shape: Shape, count: int, rate_tasks: int = RATE_TASKS, reclaim_s_max: float = RECLAIM_S_MAX
) -> Depth:
    """Measure *shape* with *count* tasks that fill the broker.

    Raises:
        ProgramError: A broker or a worker failed.
    """
    with tempfile.TemporaryDirectory(prefix="tq-depth-") as name:
        async with DeepBroker(Path(name)) as broker:
            return await _measure(broker, shape, count, rate_tasks, reclaim_s_max)


class _Rates(NamedTuple):
    enqueue: float
    drain: float


async def _rates(broker: DeepBroker, shape: Shape, tasks: int) -> _Rates:
    """Enqueue *tasks* and drain as many, in turn: before and after, the broker holds what it did."""
    pairs = [(await broker.enqueue(shape.tasks(tasks)), await broker.drain(tasks, shape.names)) for _ in range(_TIMES)]
    enqueues, drains = zip(*pairs, strict=True)
    return _Rates(median(enqueues), median(drains))


async def _fill(broker: DeepBroker, shape: Shape, count: int, rate_tasks: int) -> None:
    await broker.enqueue(shape.filling(count, _TIMES * rate_tasks))
    if shape.holds == "queue":
        return
    await broker.drain(count, shape.names)
    stats = await broker.stats()
    if shape.holds == "retry" and stats.scheduled != count:
        raise ProgramError(f"of {count:,} tasks {stats.scheduled:,} wait for a retry")


async def _measure(broker: DeepBroker, shape: Shape, count: int, rate_tasks: int, reclaim_s_max: float) -> Depth:
    _say(shape, "empty")
    empty = await _rates(broker, shape, rate_tasks)
    rss_empty = await broker.rss_mib()
    restart_empty = await broker.restart()

    _say(shape, f"{count:,} tasks")
    await _fill(broker, shape, count, rate_tasks)
    filled_at = time.monotonic()
    disk_deep = broker.disk_mib()

    _say(shape, "deep")
    deep = await _rates(broker, shape, rate_tasks)
    rss_deep, rss_peak = await broker.rss_mib(), broker.rss_peak_mib()
    restart_deep = await broker.restart()
    restore = await broker.restore_s()

    _say(shape, "the disk")
    if shape.holds == "result":
        await asyncio.sleep(max(0.0, filled_at + KEPT_S - time.monotonic()))
    else:
        await broker.purge(shape.names)
    reclaimed = await broker.reclaimed_s(max(LEFT * disk_deep, LEFT_MIB), reclaim_s_max)
    return Depth(
        shape=shape.title,
        holds=shape.holds,
        tasks=count,
        enqueue_empty=empty.enqueue,
        enqueue_deep=deep.enqueue,
        drain_empty=empty.drain,
        drain_deep=deep.drain,
        rss_empty_mib=rss_empty,
        rss_deep_mib=rss_deep,
        rss_peak_mib=rss_peak,
        restart_empty_s=restart_empty,
        restart_deep_s=restart_deep,
        restore_s=restore,
        disk_deep_mib=disk_deep,
        disk_left_mib=broker.disk_mib(),
        reclaimed_s=reclaimed,
    )


def _say(shape: Shape, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {shape.title}: {what}", file=sys.stderr, flush=True)
