"""Standard output that takes nothing: its reader has gone, or the disk is full."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.programs import environment
from tq.app.app import App
from tq.core.task import Task, TaskSpec
from tq.testing.programs import tq_command

NO_SPACE = "standard output cannot be written: [Errno 28] No space left on device\n"


@pytest.fixture(params=["gone", "full"])
def refusing(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """An output that takes nothing, and why."""
    if request.param == "full":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    yield request.param, output
    os.close(output)


@pytest.mark.parametrize(
    "words",
    [("broker", "--print-config"), ("worker", "-A", "a", "--print-config"), ("admin", "--print-config")],
    ids=["broker", "worker", "admin"],
)
def test_settings_that_cannot_be_printed_end_without_a_traceback(
    words: tuple[str, ...], refusing: tuple[str, int]
) -> None:
    why, output = refusing
    program, *more = words

    done = subprocess.run(
        tq_command(f"tq-{program}", *more), env=environment(), stdout=output, stderr=subprocess.PIPE, check=False
    )

    expected = (0, "") if why == "gone" else (1, f"tq-{program}: {NO_SPACE}")
    assert (done.returncode, done.stderr.decode()) == expected


@pytest.mark.parametrize("words", [("ping",), ("queues",), ("queues", "--json")], ids=" ".join)
def test_an_answer_that_cannot_be_printed_ends_without_a_traceback(
    words: tuple[str, ...], refusing: tuple[str, int], tmp_path: Path
) -> None:
    why, output = refusing
    url = f"file:{tmp_path}"
    with App(url) as app:
        app.enqueue(Task(TaskSpec("a"), b""))
        done = subprocess.run(
            tq_command("tq-admin", *words, "--url", url),
            env=environment(),
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert (done.returncode, done.stderr.decode()) == ((0, "") if why == "gone" else (1, f"tq-admin: {NO_SPACE}"))


def test_a_broker_serves_though_nobody_reads_its_address(refusing: tuple[str, int]) -> None:
    _, output = refusing
    words = tq_command("tq-broker", "--listen", "127.0.0.1:0", "--store", "memory")

    with subprocess.Popen(words, env=environment(), stdout=output, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stderr is not None
        said = [next(line for line in broker.stderr if "standard output" in line)]
        broker.send_signal(signal.SIGTERM)
        said += broker.stderr

    assert "standard output does not take the address" in said[0]
    assert "stopped" in said[-1]
    assert broker.returncode == 0
