"""The simulator's command line: seed after seed, until one fails; that one is cut down to what matters.

    python -m tq.testing.simulate --seeds 100       the seeds 0 to 99
    python -m tq.testing.simulate --seeds 0         until a failure, or Ctrl-C
    python -m tq.testing.simulate --seeds 1 --first 4711
    python -m tq.testing.simulate --first 4711 --only 7,9 --workers 1 --frame-tasks 2       a part of one seed

Exit code 1 and the trace of the smallest part that fails, with the command that replays
it, on standard error if a seed fails.
"""

import logging
import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count, islice

import msgspec

from tq.testing.scenario import FRAME_TASKS_MAX, Scenario
from tq.testing.simulator import SimulationFailed, run, shrunk, simulate

_SEEDS = 30
_SAID_EVERY_S = 10.0
# A chunk is a few seconds of work for a process; so many of them are given out ahead.
_CHUNK_SEEDS = 10
_CHUNKS_AHEAD = 2


def main(words: Sequence[str] | None = None) -> int:
    """Run the seeds that *words* ask for; return the exit code."""
    parser = ArgumentParser(
        prog="python -m tq.testing.simulate",
        description="Run whole simulated systems, broker, workers and clients, under faults drawn from seeds.",
    )
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"how many (default {_SEEDS}); 0: until one fails")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at a time (default: CPUs)")
    parser.add_argument("--only", type=_numbers, help="of the first seed these events only, by their numbers: 7,9")
    parser.add_argument("--workers", type=int, help="with --only: how many workers")
    parser.add_argument("--frame-tasks", type=int, default=FRAME_TASKS_MAX, help="with --only: tasks a frame, at most")
    asked = parser.parse_args(words)
    try:
        if asked.only is not None:
            return _replay(_part(asked.first, asked.only, asked.workers, asked.frame_tasks))
        return _search(asked.first, asked.seeds, asked.processes)
    except KeyboardInterrupt:
        return 0


def outcomes(seeds: Iterable[int], pool: ProcessPoolExecutor | None) -> Iterator[tuple[int, bool]]:
    """Run *seeds*, in *pool* if there is one; yield each that is done, in order, and whether it failed."""
    remaining = iter(seeds)
    chunks = iter(lambda: list(islice(remaining, _CHUNK_SEEDS)), [])
    if pool is None:
        for chunk in chunks:
            for seed in chunk:
                yield seed, not passes(seed)
        return
    ahead: deque[tuple[list[int], Future[list[bool]]]] = deque()
    most = _CHUNKS_AHEAD * (os.cpu_count() or 1)
    while True:
        ahead.extend((chunk, pool.submit(_pass, chunk)) for chunk in islice(chunks, most - len(ahead)))
        if not ahead:
            return
        chunk, passing = ahead.popleft()
        for seed, is_well in zip(chunk, passing.result(), strict=False):
            yield seed, not is_well


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Return a pool that runs seeds; each of its processes begins afresh."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_quiet)


def passes(seed: int) -> bool:
    """Run *seed*; tell whether all was well."""
    try:
        simulate(seed)
    except SimulationFailed:
        return False
    return True


def _pass(seeds: list[int]) -> list[bool]:
    """Run *seeds* up to the first that fails."""
    well: list[bool] = []
    for seed in seeds:
        well.append(passes(seed))
        if not well[-1]:
            break
    return well


def _search(first: int, seeds: int, processes: int) -> int:
    began = said = time.monotonic()
    done = 0
    pool = process_pool(processes) if processes > 1 and seeds != 1 else None
    try:
        for seed, has_failed in outcomes(range(first, first + seeds) if seeds else count(first), pool):
            if has_failed:
                return _report(seed)
            done += 1
            if (now := time.monotonic()) - said > _SAID_EVERY_S:
                said = now
                print(f"{done} seeds passed, the last was {seed}", flush=True)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    print(f"{done} seeds passed in {time.monotonic() - began:.1f} s, from {first}")
    return 0


def _report(seed: int) -> int:
    """Cut the failure of *seed* down, and print what is left of it."""
    try:
        simulate(seed)
    except SimulationFailed as failure:
        print(f"seed {seed} fails; looking for the smallest part of it that does...", file=sys.stderr, flush=True)
        print(told(shrunk(failure)), file=sys.stderr)
        return 1
    print(f"seed {seed} failed in another process and not in this one: a run depends on its process", file=sys.stderr)
    return 1


def told(failure: SimulationFailed) -> str:
    """Return a failure as text: what was planned, what happened, what went wrong, how to see it again."""
    scenario = failure.scenario
    numbers = ",".join(str(event.number) for event in scenario.events)
    command = (
        f"python -m tq.testing.simulate --first {scenario.seed} --only {numbers or 'none'} "
        f"--workers {scenario.workers} --frame-tasks {scenario.frame_tasks_max}"
    )
    # Commits are many, and say little to who does not count them.
    lines = [line for line in failure.trace if "  commit " not in line]
    planned = [f"    {event}" for event in scenario.events]
    return "\n".join(
        [f"planned, with {scenario.workers} workers:", *planned, "what happened:", *lines, failure.cause, "", command]
    )


def _replay(scenario: Scenario) -> int:
    try:
        run(scenario)
    except SimulationFailed as failure:
        print(told(failure), file=sys.stderr)
        return 1
    print(f"this part of seed {scenario.seed} passed")
    return 0


def _part(seed: int, numbers: frozenset[int], workers: int | None, frame_tasks_max: int) -> Scenario:
    whole = Scenario.draw(seed)
    return msgspec.structs.replace(
        whole.only(numbers), workers=workers or whole.workers, frame_tasks_max=frame_tasks_max
    )


def _numbers(word: str) -> frozenset[int]:
    return frozenset(int(number) for number in word.split(",")) if word != "none" else frozenset()


def _quiet() -> None:
    # Workers that lose their broker say so, as they should; the trace has it.
    logging.getLogger("tq").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
