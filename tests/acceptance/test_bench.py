"""The measurements as a user runs them, made short: `python -m bench --quick`, of what needs nothing from elsewhere."""

import json
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


def test_scenarios_are_measured_beside_the_floor() -> None:
    done = run("--only", "tq,floor", "--scenario", "both,latency", "--quick", "--json")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    measured = {(each["system"], each["measure"]) for each in document["values"]}
    assert measured >= {(name, figure) for name in ("tq", "floor") for figure in ("both", "cpu_server", "start_p50")}
    assert ("tq", "result_p50") in measured
    assert all(each["value"] > 0 for each in document["values"] if not each["measure"].startswith("cpu"))
    assert document["failures"] == {}


def test_tables_are_for_people_and_the_progress_stays_off_them() -> None:
    done = run("--only", "tq,floor", "--scenario", "both", "--quick")

    assert done.returncode == 0, done.stderr
    assert "enqueue and drain at once" in done.stdout
    assert "round 1/1: both, tq, interval" in done.stderr
    assert "round" not in done.stdout


@pytest.mark.parametrize("words", [("--scenario", "nothing"), ("--only", "tq,nothing")])
def test_what_does_not_exist_is_refused(words: tuple[str, str]) -> None:
    done = run("--quick", *words)

    assert done.returncode == 2
    assert f"there is no {words[0].removeprefix('--').replace('only', 'system')} nothing" in done.stderr
