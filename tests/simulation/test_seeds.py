"""Whole systems under faults, seed by seed; a seed that fails prints its trace."""

import os
import subprocess
import sys

import pytest

from tq.testing.simulator import Fault, simulate

SEEDS = 60


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    # What workers say of a broker that is gone would be kept, and shown, by the thousand.
    caplog.set_level("CRITICAL", logger="tq")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_task_comes_to_its_end_whatever_happens(seed: int) -> None:
    simulate(seed)


@pytest.mark.parametrize("fault", [None, Fault.PAUSE, Fault.STALL, Fault.WALL])
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
