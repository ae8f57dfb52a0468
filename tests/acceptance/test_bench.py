"""The measurements as a user runs them, made short: `python -m bench --quick`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]
WAIT_S_MAX = 120.0


def run(*words: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )


def test_a_scenario_is_measured_beside_the_floor_and_written_down(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"

    done = run("both", "--quick", "--output", str(document))

    assert done.returncode == 0, done.stderr
    assert "enqueue and drain at once" in done.stdout
    rows = [line.split(" | ") for line in document.read_text().splitlines() if line.startswith("| enqueue and")]
    ((_, unit, tq, floor, ratio, *_),) = rows
    assert unit == "tasks/s"
    assert float(ratio) == pytest.approx(float(tq.replace(",", "")) / float(floor.replace(",", "")), abs=0.01)


def test_a_scenario_that_does_not_exist_is_refused() -> None:
    done = run("--quick", "nothing")

    assert done.returncode == 2
    assert "there is no scenario nothing" in done.stderr
