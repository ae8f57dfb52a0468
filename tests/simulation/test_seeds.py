"""Whole systems under faults, seed by seed; a seed that fails is found again by `python -m tq.testing.simulate`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tq.testing.scenario import Fault
from tq.testing.simulate import outcomes, process_pool
from tq.testing.simulator import simulate

# Two processes run some eight of them a second.
BLOCKS = 20
BLOCK_SEEDS = 100
SEEDS = BLOCKS * BLOCK_SEEDS


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # What workers say of a broker that is gone would be kept, and shown, by the thousand.
    caplog.set_level("CRITICAL", logger="tq")


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with process_pool(os.cpu_count() or 1) as pool:
        yield pool


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK_SEEDS))
def test_every_task_comes_to_its_end_whatever_happens(first: int, processes: ProcessPoolExecutor) -> None:
    failed = [seed for seed, has_failed in outcomes(range(first, first + BLOCK_SEEDS), processes) if has_failed]

    # Once more, for the trace.
    for seed in failed:
        simulate(seed)
    assert failed == []


@pytest.mark.parametrize("fault", [None, Fault.PAUSE, Fault.STALL, Fault.WALL, Fault.CLIENT_WALL])
def test_nothing_is_begun_twice_where_no_worker_has_an_accident(fault: Fault | None) -> None:
    simulate(SEEDS, [] if fault is None else [fault] * 5)


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_strikes_again_and_again(fault: Fault) -> None:
    run = simulate(SEEDS + 1, [fault] * 6)

    assert sum(f"fault: {fault.value}" in line for line in run.trace) == 6


def test_a_seed_is_one_run() -> None:
    first, second, other = simulate(3), simulate(3), simulate(4)

    assert first == second
    assert first.digest != other.digest


def test_a_seed_is_the_same_run_in_another_process() -> None:
    program = "from tq.testing.simulator import simulate; print(simulate(3).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": "src"}

    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert told.stdout.strip() == simulate(3).digest


@pytest.mark.parametrize(
    "sign",
    [
        "crashes while enqueuing", "asks, ", "loses its child", "cancels ", ": done", "has done: purge",
        "has done: pause", "has done: resume", "redrives ", "forgets ", "generation 2", "pool process",
        "waited for what is not known any more",
    ],
)  # fmt: skip
def test_the_first_seeds_have_everything_in_them(sign: str, traces: str) -> None:
    assert sign in traces


@pytest.fixture(scope="module")
def traces() -> str:
    return "\n".join(line for seed in range(40) for line in simulate(seed).trace)
