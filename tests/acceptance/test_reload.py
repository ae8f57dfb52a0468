"""tq-worker --reload: a worker that is started anew when its code changes, and leaves in good order."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.fleet import Fleet, until
from tq import Task

APP = """
from tq import App

app = App()


@app.task(name="version")
def version() -> int:
    return {}
"""


@pytest.fixture
def edited(fleet: Fleet, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker that reloads, and the file of its app."""
    fleet.broker(lease_ms=2_000, heartbeat_ms=300)
    code = tmp_path / "code"
    code.mkdir()
    (code / "edited.py").write_text(APP.format(1))
    command = [sys.executable, "-c", "import sys; from tq.bin.worker import main; sys.exit(main())"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-A", "edited", "--url", fleet.url, "--reload"],
            cwd=code,
            env=fleet._environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, code / "edited.py"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def version(fleet: Fleet) -> object:
    return fleet.app.enqueue(Task.build("version").queue("default").task()).result(timeout=30)


def pids(fleet: Fleet) -> list[int]:
    return [view.info.pid for view in fleet.app.client.workers() if view.connected]


def test_a_change_starts_the_worker_anew_and_a_signal_ends_it(
    fleet: Fleet, edited: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    process, path = edited
    before, pid = version(fleet), pids(fleet)

    path.write_text(APP.format(22))
    until(lambda: pids(fleet) not in ([], pid), what="another worker connects")
    after = version(fleet)
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert (before, after) == (1, 22)
    assert pids(fleet) == []
    assert "edited.py changed: the worker starts anew" in (tmp_path / "log").read_text()


def test_an_app_that_is_broken_is_waited_for(fleet: Fleet, edited: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, path = edited
    version(fleet)

    path.write_text("this is no Python")
    until(lambda: pids(fleet) == [], what="the worker leaves")
    path.write_text(APP.format(333))

    assert version(fleet) == 333
    assert process.poll() is None


def test_the_worker_leaves_when_what_watches_is_killed(
    fleet: Fleet, edited: tuple[subprocess.Popen[bytes], Path]
) -> None:
    process, _ = edited
    version(fleet)

    os.kill(process.pid, signal.SIGKILL)

    until(lambda: pids(fleet) == [])
