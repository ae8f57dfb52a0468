"""A hundred small clients alone, and beside one that sends huge frames: `python -m bench.neighbours`.

Each small client enqueues one task a second and waits for its acknowledgement; the huge one keeps
four frames of 400 KB on their way.  The two are measured in turn, against one broker, and the
median of the rounds is printed.  Exit code 1 where the p99 beside it is more than three times that alone.

The clients are two processes, on the machine of the broker: on one that is busy, or has few
processors, the ratio also tells how they fight for those.
"""

import asyncio
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

from tq import App
from tq.testing.programs import broker_url, start_broker

_CLIENTS = 100
_EVERY_S = 1.0
_HUGE_BYTES = 200_000
_HUGE_AT_A_TIME = 8
_RATIO_MAX = 3.0


async def small(url: str, seconds: float) -> list[float]:
    """Return how long each enqueue of the small clients took, in milliseconds."""
    times: list[float] = []
    until = time.monotonic() + seconds

    async def one(number: int) -> None:
        async with App(url) as app:

            @app.task(name="small", queue="small", result_ttl=0)
            async def work(number: int) -> None: ...

            await work.aenqueue(number)
            await asyncio.sleep(number / _CLIENTS * _EVERY_S)
            while time.monotonic() < until:
                began = time.monotonic()
                await work.aenqueue(number)
                took = time.monotonic() - began
                times.append(took * 1_000)
                await asyncio.sleep(max(0.0, _EVERY_S - took))

    await asyncio.gather(*[one(number) for number in range(_CLIENTS)])
    return times


async def huge(url: str, seconds: float) -> int:
    """Enqueue what is huge for so long; return how many bytes."""
    until = time.monotonic() + seconds
    payload = os.urandom(_HUGE_BYTES)
    sent = 0
    async with App(url) as app:

        @app.task(name="huge", queue="huge", result_ttl=0)
        async def work(payload: bytes) -> None: ...

        while time.monotonic() < until:
            await work.aenqueue_many([(payload,) for _ in range(_HUGE_AT_A_TIME)])
            sent += _HUGE_AT_A_TIME * _HUGE_BYTES
    return sent


def _small(url: str, seconds: float) -> list[float]:
    return asyncio.run(small(url, seconds))


def _huge(url: str, seconds: float) -> int:
    return asyncio.run(huge(url, seconds))


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = ArgumentParser(prog="python -m bench.neighbours", description="Small clients beside a huge one.")
    parser.add_argument("--rounds", type=int, default=3, help="of both (default 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each (default 10)")
    asked = parser.parse_args(words)
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    rates: list[float] = []
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with TemporaryDirectory() as name, pool:
        folder = Path(name)
        with start_broker("--data", str(folder / "data"), log=folder / "broker.log") as broker:
            url = broker_url(broker)
            for _ in range(asked.rounds):
                alone.append(pool.submit(_small, url, asked.seconds).result())
                sending = pool.submit(_huge, url, asked.seconds + 1)
                beside.append(pool.submit(_small, url, asked.seconds).result())
                rates.append(sending.result() / (asked.seconds + 1) / 1e6)
            broker.stop()
    before, after = _percentiles(alone), _percentiles(beside)
    ratio = after[1] / before[1]
    print(f"alone:  p50 {before[0]:.2f} ms, p99 {before[1]:.2f} ms")
    print(f"beside: p50 {after[0]:.2f} ms, p99 {after[1]:.2f} ms, beside {median(rates):.1f} MB/s")
    print(f"p99: {ratio:.2f} times that alone; at most {_RATIO_MAX:g} are aimed at")
    return 0 if ratio <= _RATIO_MAX else 1


def _percentiles(rounds: list[list[float]]) -> tuple[float, float]:
    cuts = [quantiles(times, n=100, method="inclusive") for times in rounds]
    return median(each[49] for each in cuts), median(each[98] for each in cuts)


if __name__ == "__main__":
    sys.exit(main())
