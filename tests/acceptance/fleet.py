"""A broker and workers as real processes, for one test: started, stopped, killed, suspended, restarted.

    fleet.broker(lease_ms=1_500, heartbeat_ms=300)      # listens before this returns
    worker = fleet.worker(pool="process")
    fleet.bind(handlers.echo).enqueue("a").result(timeout=10)
    worker.kill()

Invariant: every process of a fleet carries its mark in its environment; `Fleet.close`
leaves none behind, and fails if one of the programs had let go of a child.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, ParamSpec, Self, TypeVar

import psutil
import pytest

from tests.acceptance.handlers import JOURNAL_VARIABLE
from tests.acceptance.odd_broker import OFFSET_VARIABLE
from tq import App
from tq.app.declared import DeclaredTask
from tq.core.queue import QueueView
from tq.testing.programs import free_port

T = TypeVar("T")
P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")

ROOT = Path(__file__).resolve().parents[2]
MARK_VARIABLE = "ACCEPTANCE_FLEET"
# A loaded machine starts an interpreter slowly; a hung program is still found out within the minute.
PATIENCE_S = 30.0
_POLL_S = 0.01
_LOG_TAIL_CHARACTERS = 6_000

LIVE: "list[Fleet]" = []
"""The fleets that are open: what a failing test shows the logs of."""


def until(condition: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "") -> T:
    """Return what *condition* returns once that is true; fail after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or condition}; the last look gave {value!r}")
        time.sleep(_POLL_S)
    return value


class Program:
    """One of the command lines as a process, which can be started again after it has ended."""

    def __init__(self, name: str, module: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._command = [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())", *arguments]
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written, to standard output or standard error, since the first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def launch(self) -> Self:
        """Start it and wait for nothing."""
        assert not self.is_alive
        with self._log.open("ab") as log:
            self._spawn(log)
        return self

    def _spawn(self, log: IO[bytes]) -> None:
        # A session of its own: a Ctrl-C at the tests' terminal is the tests', which end it.
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def tell(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def suspend(self) -> None:
        self.tell(signal.SIGSTOP)
        until(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def resume(self) -> None:
        self.tell(signal.SIGCONT)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Return the exit code, once it has ended; a signal is its negative number."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it as a power failure would: no handler of its own runs."""
        if self.is_alive:
            self.tell(signal.SIGKILL)
        self.wait()

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return the exit code."""
        self.tell(number)
        return self.wait()


class Broker(Program):
    """tq-broker, on the same port and the same data over all its starts."""

    def start(self) -> Self:
        """Start it and wait until it listens."""
        before = len(self.log)
        self.launch()
        until(lambda: "\nlistening on " in "\n" + self.log[before:] or not self.is_alive, what="the broker listens")
        assert self.is_alive, self.log[before:]
        return self


class WorkerProcess(Program):
    """tq-worker."""

    def start(self) -> Self:
        """Start it and wait until it has met the broker."""
        before = self.log.count("connected to broker")
        self.launch()
        until(lambda: self.log.count("connected to broker") > before or not self.is_alive, what=f"{self.name} connects")
        assert self.is_alive, self.log
        return self


class Fleet:
    """The processes of one test, their directory, and an app that talks to them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.journal_path = directory / "journal"
        self.journal_path.touch()
        self.offset_path = directory / "offset"
        self.port = free_port()
        self.url = f"tq://127.0.0.1:{self.port}"
        self.app = App(self.url)
        self.programs: list[Program] = []
        self._mark = uuid.uuid4().hex
        LIVE.append(self)

    # ------------------------------------------------------------------------------------------------ programs

    def broker(self, *module: str, **settings: object) -> Broker:
        """Start a broker; *settings* are its flags by their names in the settings file."""
        return self.broker_program(*module, **settings).start()

    def broker_program(self, module: str = "tq.bin.broker", /, **settings: object) -> Broker:
        """Return a broker that is not started."""
        settings = {"data": self.data, "listen": f"127.0.0.1:{self.port}", **settings}
        name = f"broker-{len(self.programs)}"
        broker = Broker(name, module, _flags(settings), self._environment(), self.directory / f"{name}.log")
        self.programs.append(broker)
        return broker

    def worker(self, **settings: object) -> WorkerProcess:
        """Start a worker of `tests.acceptance.handlers`."""
        return self.worker_program(**settings).start()

    def worker_program(self, **settings: object) -> WorkerProcess:
        """Return a worker that is not started."""
        name = str(settings.get("name", f"worker-{len(self.programs)}"))
        settings = {"app": "tests.acceptance.handlers:app", "url": self.url, **settings, "name": name}
        log = self.directory / f"{name}.log"
        worker = WorkerProcess(name, "tq.bin.worker", _flags(settings), self._environment(), log)
        self.programs.append(worker)
        return worker

    def admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run tq-admin to its end."""
        command = [sys.executable, "-c", "import sys; from tq.bin.admin import main; sys.exit(main())"]
        return subprocess.run(
            [*command, *words, "--url", self.url],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TQ_")}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONUNBUFFERED": "1",
            MARK_VARIABLE: self._mark,
            JOURNAL_VARIABLE: str(self.journal_path),
            OFFSET_VARIABLE: str(self.offset_path),
        }

    # ----------------------------------------------------------------------------------------- what can be done

    def bind(self, task: DeclaredTask[P, C, R]) -> DeclaredTask[P, C, R]:
        """Return *task*, whose app knows no broker, as one of this fleet's broker."""
        return DeclaredTask(task._handler, task.spec, self.app._clients)

    def executions(self, key: str) -> int:
        """Return how often a task with *key* was begun."""
        return sum(words[1] == key and words[0] != "opened" for words in self.journal)

    @property
    def journal(self) -> list[list[str]]:
        """The words of each line that the handlers have written."""
        # A process that was killed may have left half a line at the very end, never in the middle: each is one write.
        return [line.split() for line in self.journal_path.read_text().splitlines()]

    def queue(self, name: str = "default") -> QueueView:
        (view,) = self.app.client.queues(name)
        return view

    def is_drained(self, name: str = "default") -> bool:
        view = self.queue(name)
        return view.ready + view.running + view.scheduled == 0

    def logs(self) -> list[tuple[str, str]]:
        return [(program.name, program.log[-_LOG_TAIL_CHARACTERS:]) for program in self.programs]

    # -------------------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """End every process by its id, and say which had been left by the programs."""
        LIVE.remove(self)
        self.app.close()
        for program in self.programs:
            if program.is_alive:
                # A suspended process cannot be told anything else.
                program.kill()
        # Children of a killed worker find out for themselves, by their sockets.
        deadline = time.monotonic() + 10
        while (left := self._marked()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for orphan in left:
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
        assert not left, f"processes outlived the programs that had started them: {left}"

    def _marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(MARK_VARIABLE) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class EmbeddedFleet(Fleet):
    """The same over the data directory alone: whoever is left of its processes has the broker in it.

    What stands for the broker is a program that embeds one.  Settings are everybody's,
    also of this process: any of them may be the owner.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.url = f"file:{self.data}"
        self.app = App(self.url)
        self._settings: dict[str, str] = {}

    def broker_program(self, module: str = "tests.acceptance.owner", /, **settings: object) -> Broker:
        said = {f"TQ_{name.upper()}": str(value) for name, value in settings.items()}
        self._settings.update(said)
        os.environ.update(said)
        name = f"owner-{len(self.programs)}"
        log = self.directory / f"{name}.log"
        broker = Broker(name, module, [self.url], self._environment(), log)
        self.programs.append(broker)
        return broker

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._settings}

    def close(self) -> None:
        super().close()
        for variable in self._settings:
            del os.environ[variable]


FLEETS = {"daemon": Fleet, "embedded": EmbeddedFleet}
ON_BOTH = pytest.mark.parametrize("fleet", list(FLEETS), indirect=True)
"""Runs a test over the daemon and over a broker that is embedded in one of its processes."""


def _flags(settings: dict[str, object]) -> list[str]:
    flags: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, str(value)]
    return flags
