"""The embedded broker: started when it is needed, gone when it is closed."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tq.app.app import App
from tq.app.embedded import EmbeddedDialer
from tq.core.errors import UsageError


def broker_threads() -> int:
    return sum("broker" in thread.name for thread in threading.enumerate())


def test_the_broker_runs_from_the_first_connection_until_the_close() -> None:
    before = broker_threads()
    dialer = EmbeddedDialer()
    assert broker_threads() == before

    dialer.connect_blocking(1).close()
    dialer.connect_blocking(1).close()
    running = broker_threads()
    dialer.close()
    dialer.close()

    assert running == before + 1
    assert broker_threads() == before


def test_a_closed_broker_is_not_started_again_behind_ones_back() -> None:
    dialer = EmbeddedDialer()
    dialer.connect_blocking(1).close()
    dialer.close()

    with pytest.raises(UsageError, match="was closed, with all it held"):
        dialer.connect_blocking(1)


def test_two_apps_have_two_brokers() -> None:
    with App("memory:") as one, App("memory:") as other:

        @one.task(queue="only-here")
        def send() -> None: ...

        send.enqueue()

        assert [queue.name for queue in one.client.queues()] == ["only-here"]
        assert other.client.queues() == []


@pytest.mark.acceptance
def test_a_program_that_declares_tasks_loads_no_broker() -> None:
    program = (
        "import sys; from tq import App; app = App('memory:'); app.task(len); "
        "print([name for name in sys.modules if name.startswith(('tq.broker', 'tq.engine', 'tq.store'))])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "[]\n"
