"""`make fuzz`: chunk after chunk of frames that no honest peer sends, against both ends and the whole service.

    python -m tests.fuzz.run                          some minutes
    python -m tests.fuzz.run --frames 10000000        the long form
    python -m tests.fuzz.run --target service --chunk 4711        one chunk again, in this process

A chunk is its target and its number: the same frames on every machine.  Exit code 1, the cause and
the command that repeats it on standard error where one fails, grows without bound, or does not end.
"""

import asyncio
import faulthandler
import gc
import logging
import multiprocessing
import os
import random
import sys
import time
import traceback
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from typing import NamedTuple

import psutil
from rich.progress import Progress

from tests.fuzz.service import attack_service
from tests.fuzz.sides import attack_broker_end, attack_client_end

_FRAMES = 5_000_000
_CHUNK_FRAMES = 10_000
# A second or less, on a machine that is not busy.
_CHUNK_S_MAX = 120.0
_GROWTH_BYTES_MAX = 200 << 20


def _service(draw: random.Random, frames: int) -> int:
    return asyncio.run(attack_service(draw, frames))


TARGETS: dict[str, Callable[[random.Random, int], int]] = {
    "broker": attack_broker_end,
    "client": attack_client_end,
    "service": _service,
}


class Outcome(NamedTuple):
    """What came of one chunk: how many of its frames were messages; ``failure`` is why it is the last."""

    target: str
    chunk: int
    messages: int
    seconds: float
    rss: int
    failure: str | None


def attack(target: str, chunk: int) -> Outcome:
    """Run one chunk in this process, which is given up where it hangs."""
    faulthandler.dump_traceback_later(_CHUNK_S_MAX, exit=True, file=sys.__stderr__ or sys.stderr)
    began = time.monotonic()
    messages, failure = 0, None
    try:
        messages = TARGETS[target](random.Random(f"{target} {chunk}"), _CHUNK_FRAMES)
    except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
        failure = traceback.format_exc(limit=-8)
    finally:
        faulthandler.cancel_dump_traceback_later()
    gc.collect()
    rss = psutil.Process().memory_info().rss
    return Outcome(target, chunk, messages, time.monotonic() - began, rss, failure)


def main(words: Sequence[str] | None = None) -> int:
    """Attack as *words* ask for; return the exit code."""
    parser = ArgumentParser(prog="python -m tests.fuzz.run", description="Attack the protocol with harmed frames.")
    parser.add_argument("--frames", type=int, default=_FRAMES, help=f"how many, at least (default {_FRAMES:,})")
    parser.add_argument("--first", type=int, default=0, help="the first chunk (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many at a time (default: CPUs)")
    parser.add_argument("--target", choices=list(TARGETS), help="attack this alone (default: each in turn)")
    parser.add_argument("--chunk", type=int, help="run this one chunk of --target again")
    asked = parser.parse_args(words)
    if asked.chunk is not None:
        outcome = attack(asked.target or "broker", asked.chunk)
        print(outcome.failure or f"chunk {outcome.chunk} passed: {outcome.messages} messages")
        return int(outcome.failure is not None)
    targets = [asked.target] if asked.target else list(TARGETS)
    return _attack_all(targets, asked.first, -(-asked.frames // _CHUNK_FRAMES), asked.processes)


def _attack_all(targets: list[str], first: int, chunks: int, processes: int) -> int:
    began = time.monotonic()
    plan = ((targets[number % len(targets)], first + number // len(targets)) for number in count())
    seconds: dict[str, float] = dict.fromkeys(TARGETS, 0.0)
    done: Counter[str] = Counter()
    messages: Counter[str] = Counter()
    least_rss: int | None = None
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=quiet)
    with pool, Progress() as progress:
        bar = progress.add_task("frames", total=chunks * _CHUNK_FRAMES)
        running: dict[Future[Outcome], tuple[str, int]] = {}
        while sum(done.values()) < chunks:
            while len(running) < min(2 * processes, chunks - sum(done.values())):
                target, chunk = next(plan)
                running[pool.submit(attack, target, chunk)] = (target, chunk)
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                target, chunk = running.pop(future)
                failure, outcome = _outcome(future)
                if outcome is not None:
                    least_rss = min(outcome.rss, least_rss or outcome.rss)
                    if outcome.rss - least_rss > _GROWTH_BYTES_MAX:
                        failure = f"memory has grown from {least_rss >> 20} to {outcome.rss >> 20} MiB"
                    done[target] += 1
                    seconds[target] += outcome.seconds
                    messages[target] += outcome.messages
                    progress.advance(bar, _CHUNK_FRAMES)
                if failure is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    command = f"python -m tests.fuzz.run --target {target} --chunk {chunk}"
                    print(f"{failure}\n{command}", file=sys.stderr)
                    return 1
    for target in targets:
        frames = done[target] * _CHUNK_FRAMES
        rate = frames / seconds[target] if frames else 0
        print(f"{target:>8} {frames:>12,} frames, {messages[target]:>12,} messages, {rate:>8,.0f} frames/s a process")
    total = sum(done.values()) * _CHUNK_FRAMES
    took = time.monotonic() - began
    print(f"{total:,} frames passed in {took:.1f} s, {total / took:,.0f} a second, from chunk {first}")
    return 0


def _outcome(future: Future[Outcome]) -> tuple[str | None, Outcome | None]:
    try:
        outcome = future.result()
    except BrokenProcessPool:
        return f"the process has died, or did not end within {_CHUNK_S_MAX:g} s; where it was is above", None
    return outcome.failure, outcome


def quiet() -> None:
    """Leave out what tq logs of each violation."""
    logging.getLogger("tq").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    quiet()
    sys.exit(main())
