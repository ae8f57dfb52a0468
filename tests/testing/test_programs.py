"""Tests of tq.testing.programs, with real processes: small ones, and a broker with its worker."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tq.client import SyncClient, TcpDialer
from tq.core.lifecycle import TaskState
from tq.core.task import Task
from tq.testing import programs
from tq.testing.programs import Program, ProgramError, broker_url, free_port, start_broker, start_worker

pytestmark = pytest.mark.acceptance

ECHO = "import sys; [print(line.strip()[::-1], flush=True) for line in sys.stdin]"
SLEEP = "import sys, time; print('up', flush=True); print('awake', file=sys.stderr, flush=True); time.sleep(60)"
FAIL = "import sys; print('there is no such disk', file=sys.stderr); sys.exit(3)"
APP = """
from tq import App

app = App()


@app.task(queue="texts")
def backwards(text):
    return text[::-1]
"""


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_is_talked_to_line_by_line(tmp_path: Path) -> None:
    with Program.start(python(ECHO), log=tmp_path / "log") as program:
        program.write_line("abc")
        first = program.read_line()
        program.write_line("def")
        second = program.read_line()

    assert (first, second) == ("cba", "fed")


def test_a_program_does_not_outlive_its_block(tmp_path: Path) -> None:
    with Program.start(python(SLEEP), log=tmp_path / "log") as program:
        program.read_line()

    assert not is_there(program.pid)


def test_what_a_program_logs_is_waited_for(tmp_path: Path) -> None:
    with Program.start(python(SLEEP), log=tmp_path / "log") as program:
        program.wait_for_log("awake")

    assert program.log_text == "awake\n"


def test_a_program_that_ended_is_reported_with_its_log(tmp_path: Path) -> None:
    with (
        Program.start(python(FAIL), log=tmp_path / "log") as program,
        pytest.raises(ProgramError, match=r"ended with exit code 3; the end of log:\nthere is no such disk"),
    ):
        program.read_line()


def test_a_log_that_never_says_it_is_not_waited_for_after_the_end(tmp_path: Path) -> None:
    with Program.start(python(FAIL), log=tmp_path / "log") as program, pytest.raises(ProgramError, match="exit code 3"):
        program.wait_for_log("ready")


def test_a_silent_program_is_given_up(tmp_path: Path) -> None:
    with (
        Program.start(python(ECHO), log=tmp_path / "log") as program,
        pytest.raises(ProgramError, match=r"said nothing for 0\.01 s"),
    ):
        program.read_line(0.01)


def test_nothing_is_written_to_a_program_that_ended(tmp_path: Path) -> None:
    with Program.start(python("import sys"), log=tmp_path / "log") as program:
        program.wait()

        with pytest.raises(ProgramError, match="ended with exit code 0"):
            program.write_line("anybody?")


def test_a_program_killed_by_a_signal_did_not_stop_in_good_order(tmp_path: Path) -> None:
    with Program.start(python(SLEEP), log=tmp_path / "log") as program:
        program.read_line()

        with pytest.raises(ProgramError, match=r"stopped with exit code -15, not 0"):
            program.stop()


def test_the_exit_code_is_that_of_the_signal_asked_for(tmp_path: Path) -> None:
    with Program.start(python(SLEEP), log=tmp_path / "log") as program:
        program.read_line()

        code = program.end(signal.SIGKILL)

    assert code == -signal.SIGKILL


def test_a_broker_and_a_worker_serve_and_stop_in_good_order(tmp_path: Path) -> None:
    (tmp_path / "texts.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    with start_broker("--store", "memory", log=tmp_path / "broker.log") as broker:
        url = broker_url(broker)
        words = ("-A", "texts", "--url", url)
        with (
            start_worker(*words, log=tmp_path / "worker.log", environment=environment) as worker,
            SyncClient(TcpDialer.of(url)) as client,
        ):
            task = client.enqueue(Task.build("texts.backwards").args("abc").queue("texts").task())
            outcome = client.wait(task, timeout=20)
            worker.stop()
        broker.stop()

    assert outcome.state is TaskState.COMPLETED


def test_a_worker_without_its_app_is_not_returned(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="there is no module 'nowhere'"):
        start_worker("-A", "nowhere", log=tmp_path / "worker.log")


def test_a_broker_that_cannot_listen_has_no_url(tmp_path: Path) -> None:
    with (
        start_broker("--store", "nothing", log=tmp_path / "broker.log") as broker,
        pytest.raises(ProgramError, match="ended with exit code 2"),
    ):
        broker_url(broker)


def test_a_free_port_is_one_that_a_server_can_have() -> None:
    port = free_port()

    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert free_port() != port


def test_without_a_free_port_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(programs, "_PORTS", range(taken, taken + 1))

        with pytest.raises(ProgramError, match="is free"):
            free_port()
