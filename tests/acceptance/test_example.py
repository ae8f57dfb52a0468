"""The main job as a user runs it: `python -m examples.stdlib_index`, on a small tree of sources."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.acceptance.programs import environment

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]
WAIT_S_MAX = 60.0


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "examples.stdlib_index", *words]


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
        check=False,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twenty modules that nobody is in a hurry for, a package that somebody is, and a file that does not parse."""
    tree = tmp_path / "tree"
    (tree / "urgent").mkdir(parents=True)
    for number in range(20):
        text = f"import os\nfrom json import dumps\n\n\nclass C{number}:\n    def f(self): ...\n"
        (tree / f"module{number}.py").write_text(text)
    for number in range(5):
        (tree / "urgent" / f"part{number}.py").write_text("from . import other\n\nasync def f(): ...\n")
    (tree / "odd.py").write_bytes(b"# coding: utf-8\nname = '\xff'\n")
    return tree


def test_the_index_is_that_of_a_sequential_run_and_ends_with_exit_code_0(tree: Path) -> None:
    done = run("urgent", "--tree", str(tree), "--workers", "2", "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["totals"] == {
        "files": 27,
        "failed": 2,
        "lines": 20 * 6 + 5 * 3,
        "functions": 25,
        "classes": 20,
        "imports": 45,
    }
    assert report["imports"] == {"os": 20, "json": 20, "(its own package)": 5}
    assert report["urgent_files"] == 5
    assert report["differences"] == []


def test_what_does_not_parse_is_a_dead_letter_with_its_traceback(tree: Path) -> None:
    done = run("--tree", str(tree), "--workers", "1", "--json")

    letters = {Path(letter["path"]).name: letter for letter in json.loads(done.stdout)["dead_letters"]}
    assert letters.keys() == {"broken_source.txt", "odd.py"}
    assert letters["broken_source.txt"]["attempts"] == 3
    assert "index_file" in letters["broken_source.txt"]["traceback"]
    assert "def greet(name:" in letters["broken_source.txt"]["traceback"]
    assert letters["odd.py"]["error"].startswith("SyntaxError: (unicode error) 'utf-8' codec")


def test_tables_are_for_people_and_the_progress_stays_off_them(tree: Path) -> None:
    done = run("urgent", "--tree", str(tree), "--workers", "1")

    assert done.returncode == 0, done.stderr
    assert "First came urgent: 5 files" in done.stdout
    assert "SyntaxError: '(' was never closed" in done.stdout
    assert "by tasks" in done.stderr


def test_data_and_logs_are_kept_where_that_is_asked_for(tree: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    first = run("--tree", str(tree), "--workers", "1", "--keep-data", str(kept), "--json")
    again = run("--tree", str(tree), "--workers", "1", "--keep-data", str(kept), "--json")

    assert first.returncode == 0, first.stderr
    assert {path.name for path in kept.iterdir()} == {"broker.log", "data", "worker.log"}
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.parametrize("words", [["no_such_package"], ["--workers", "0"], ["--unknown"]])
def test_a_wrong_command_line_ends_with_exit_code_2(words: list[str], tree: Path) -> None:
    done = run("--tree", str(tree), *words)

    assert done.returncode == 2
    assert done.stderr.endswith("Try --help.\n")


def test_a_program_that_does_not_start_is_reported_with_its_log(tree: Path) -> None:
    done = run("--tree", str(tree), "--json", TQ_LEASE_MS="never")

    assert done.returncode == 1
    assert done.stdout == ""
    assert "broker.log" in done.stderr
    assert "TQ_LEASE_MS" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_behind(number: signal.Signals, tree: Path, tmp_path: Path) -> None:
    # So many files that it is still at work when the signal comes.
    for copy in range(3_000):
        (tree / f"copy{copy}.py").write_text("import os\n" * 2_000)
    kept = tmp_path / "kept"
    words = command("--tree", str(tree), "--workers", "2", "--keep-data", str(kept))
    with subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            wait_until(lambda: (kept / "worker.log").exists() and "serving" in (kept / "worker.log").read_text())
            started = psutil.Process(process.pid).children(recursive=True)

            process.send_signal(number)
            _, err = process.communicate(timeout=WAIT_S_MAX)
        finally:
            process.kill()

    assert process.returncode == 130, err
    assert len(started) >= 2
    assert not [child for child in started if child.is_running()]
