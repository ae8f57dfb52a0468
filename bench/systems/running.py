"""A system that runs: a fresh server, the program that enqueues, and worker processes as a scenario asks for them.

Invariant: no process that was started here outlives its ``with`` block, nor do its children.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench import environments
from bench.systems.catalog import SYSTEMS, Shape, Subject
from bench.systems.loads import PROCESSES, RESULTS_VARIABLE, TALLY_VARIABLE, THREADS
from bench.systems.servers import Server
from tq.testing.programs import Program, start_worker

_ANSWER_S_MAX = 150.0
_WARM_UP_TASKS = 100
# When one of several processes has run its first task, the others, started with it, are about to.
_OTHERS_READY_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_TQ_POOLS = {
    Shape.ONE: (),
    Shape.TWO: (),
    Shape.THREADS: ("-P", "thread", "-c", str(THREADS)),
    Shape.PROCESSES: ("-P", "process", "-c", str(PROCESSES)),
}


class Cpu(NamedTuple):
    """CPU seconds used so far, by all threads and child processes of each part."""

    server: float
    worker: float
    client: float


class Running:
    """A running system, and what is asked of its client."""

    def __init__(self, subject: Subject, server: Server, client: Program, directory: Path) -> None:
        self._system = SYSTEMS[subject.system]
        self._name = subject.system
        self._server = server
        self._client = client
        self._directory = directory
        self._workers: list[Program] = []

    def ask(self, do: str, **words: object) -> dict[str, Any]:
        """Let the client do one of the things that `bench.systems.client` lists.

        Raises:
            ProgramError: It failed, or took too long.
        """
        self._client.write_line(json.dumps({"do": do, **words}))
        answer: dict[str, Any] = json.loads(self._client.read_line(_ANSWER_S_MAX))
        return answer

    @contextmanager
    def worker(self, shape: Shape) -> Iterator[None]:
        """Run worker processes of *shape*, which have done a few tasks when this begins."""
        programs = 2 if shape is Shape.TWO and self._system.twice else 1
        with ExitStack() as stack:
            for _ in range(programs):
                program = stack.enter_context(self._start_worker(shape))
                stack.callback(_kill, program.pid)
                self._workers.append(program)
            self.ask("warm_up", tasks=_WARM_UP_TASKS)
            if shape in {Shape.TWO, Shape.PROCESSES}:
                time.sleep(_OTHERS_READY_S)
            yield
            self._workers.clear()

    def hold(self) -> None:
        """Let no task run from now on."""
        if self._system.holds:
            self.ask("hold")
        else:
            self._signal_workers(signal.SIGSTOP)

    def let_go(self) -> None:
        """Let tasks run again."""
        if self._system.holds:
            self.ask("let_go")
        else:
            self._signal_workers(signal.SIGCONT)

    def cpu(self) -> Cpu:
        """Return the CPU time used so far."""
        workers = sum(_seconds(worker.pid) for worker in self._workers)
        return Cpu(_seconds(self._server.pid), workers, _seconds(self._client.pid))

    def server_main_thread(self) -> float:
        """Return the CPU seconds of the server's main thread; see proc(5), fields 14 and 15 of stat."""
        process = self._server.pid
        text = Path(f"/proc/{process}/task/{process}/stat").read_text(encoding="ascii")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def _start_worker(self, shape: Shape) -> Program:
        log = self._directory / f"worker-{len(self._workers)}.log"
        environment = self._environment
        if self._name == "tq":
            return start_worker("-A", "bench.systems.tq:app", *_TQ_POOLS[shape], log=log, environment=environment)
        # One of two programs is as if it were alone.
        words = Shape.ONE if self._system.twice and shape is Shape.TWO else shape
        command = [str(python(self._name)), "-m", "bench.systems.program", self._name, "worker", words]
        return Program.start(command, log=log, environment=environment, directory=environments.ROOT)

    @property
    def _environment(self) -> dict[str, str]:
        return environment(self._name, self._server, self._directory)

    def _signal_workers(self, number: signal.Signals) -> None:
        for worker in self._workers:
            for process in _family(worker.pid):
                process.send_signal(number)


@contextmanager
def running(subject: Subject, task: str = "noop", *, results: bool = False) -> Iterator[Running]:
    """Run a fresh server of *subject*, and a client that enqueues *task*; *results* if they are to be waited for."""
    system = SYSTEMS[subject.system]
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as name:
        directory = Path(name)
        with system.server(subject.durability, directory) as server:
            command = [str(python(subject.system)), "-m", "bench.systems.program", subject.system, "client", task]
            variables = environment(subject.system, server, directory)
            if results:
                server.variables[RESULTS_VARIABLE] = variables[RESULTS_VARIABLE] = "1"
            with Program.start(
                command, log=directory / "client.log", environment=variables, directory=environments.ROOT
            ) as client:
                client.read_line()
                yield Running(subject, server, client, directory)


def python(system: str) -> Path:
    """Return the Python that *system* runs in, its environment made if there is none."""
    requirements = SYSTEMS[system].requirements
    return environments.python_with(system, requirements) if requirements else Path(sys.executable)


def environment(system: str, server: Server, directory: Path) -> dict[str, str]:
    """Return the environment of a client or a worker."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TQ_", "BENCH_"))}
    # A peer's Python gets none of the bench's own libraries; the modules it shares are in the repository's root.
    path = environments.python_path(inherits=not SYSTEMS[system].requirements)
    tally = {TALLY_VARIABLE: str(directory / "tally")}
    return {**inherited, "PYTHONPATH": path, **server.variables, **tally}


def _family(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _seconds(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        times = process.cpu_times()
        # Of children that have ended, the parent knows what they used.
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _kill(pid: int) -> None:
    """End a worker and its children at once: what they hold is of no use to anybody."""
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
