"""tq-admin: its help, and its refusals before any broker is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tq
from tq.bin.admin import main

# Each costs tens of milliseconds, and a command that only asks and prints needs none of them.
HEAVY = {"rich", "structlog", "yaml", "uvloop", "rocksdict", "tq.engine", "tq.broker.service", "tq.store", "tq.app"}


def test_help_lists_the_commands_and_the_settings_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    for word in ("ping", "stats", "queues", "queue ", "tasks", "task ", "workers", "dead "):
        assert f"│ {word}" in text
    for word in ("--url", "--json", "--timeout-ms", "Exit codes: 0 done", "tq-admin queue purge mail --yes"):
        assert word in text


@pytest.mark.parametrize("noun, verbs", [("queue", "show pause resume purge"), ("task", "show cancel retry")])
def test_help_of_a_noun_lists_its_verbs(noun: str, verbs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([noun, "--help"]) == 0

    text = capsys.readouterr().out
    assert all(f"│ {verb} " in text for verb in verbs.split())


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["que"], 'Unknown command "que"'),
        (["queue", "drop"], 'Unknown command "drop"'),
        (["ping", "--loud"], "Unknown option: --loud"),
        (["queue", "show"], "requires an argument"),
        (["task", "show", "abc"], "a task id is a UUID"),
        (["tasks", "--state", "completed"], "completed"),
        (["tasks", "--limit", "many"], "many"),
        (["ping", "--url", "http://x"], "starts with tq://"),
        (["ping", "--timeout-ms", "1"], "--timeout-ms must be 100ms to 10m"),
    ],
)
def test_a_wrong_command_line_is_told_and_ends_with_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [["que", "--json"], ["--json", "ping", "--timeout-ms", "1"]])
def test_a_wrong_command_line_is_an_object_if_json_is_wanted(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2

    assert json.loads(capsys.readouterr().err)["error"]["exit_code"] == 2


def test_what_is_heavy_is_not_loaded_at_the_start() -> None:
    code = "import sys, tq.bin.admin; print(*sys.modules)"

    here = {**os.environ, "PYTHONPATH": str(Path(tq.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True)

    assert not HEAVY & set(done.stdout.split())
