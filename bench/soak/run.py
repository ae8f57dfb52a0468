"""One soak: a broker and workers that are killed, a proxy that cuts connections, a load that is audited, samples.

Invariant: whatever ends a soak, none of its processes outlives it.
"""

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from bench import environments
from bench.soak.broker import KilledBroker
from bench.soak.handlers import QUEUE, declared, end_of
from bench.soak.load import PROBE_S_MAX, Broken, Load, Probes
from bench.soak.verdict import Sample
from tq import App
from tq.core.lifecycle import TaskState
from tq.testing.programs import Program, start_worker

_WORKERS = 2
_LEASE = ("--lease-ms", "2000", "--heartbeat-ms", "400")
# How often the load is looked at for whether the broker may still be killed.
_LOOK_S = 0.1
# A probe that is under way has its time.
_SETTLE_S_MAX = PROBE_S_MAX + 15.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much, and how rough: seconds between kills of the broker, ends of workers, cuts and samples.

    The broker is killed once at least, and else only in the first quarter of the tasks: what grows with
    time is looked for in its last life.
    """

    tasks: int
    broker_every_s: float = 10.0
    worker_every_s: float = 4.0
    cut_every_s: float = 3.0
    sample_every_s: float = 5.0


class Soak:
    """A soak in *folder*; ``samples`` is what it was seen to be.

    ``accidents`` counts the ends of workers, ``broker_kills`` those of the broker.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.samples: list[Sample] = []
        self.accidents = 0
        self.broker_kills = 0
        self._folder = folder
        self._plan = plan
        self._stop = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Run to the end; *on_progress* is told how many tasks have ended well.

        Raises:
            Broken: A promise is broken.
        """
        folder, plan, probed = self._folder, self._plan, threading.Event()
        with ExitStack() as stack:
            broker = stack.enter_context(
                KilledBroker("--data", str(folder / "data"), *_LEASE, log=folder / "broker.log")
            )
            direct = broker.url
            through = stack.enter_context(self._proxied(direct))
            app, operator = stack.enter_context(App(through)), stack.enter_context(App(direct))
            load, probes = Load(app, declared(app), operator, plan.tasks), Probes(declared(operator))
            stack.enter_context(self._beside("accidents", lambda: self._torment(through)))
            stack.enter_context(self._beside("broker's accidents", lambda: self._kill_broker(broker, load)))
            stack.enter_context(self._beside("samples", lambda: self._watch(broker, load, probes, on_progress)))
            # The first to end, while there are workers: else the last probe is waited for in vain.
            stack.enter_context(self._beside("probes", lambda: probes.run(probed), probed))
            load.run(self._stop)
            if not self._failures:
                self._check_counts(operator)
                on_progress(load.ended)
        for failure in self._failures:
            raise failure

    def _check_counts(self, operator: App) -> None:
        """Compare the broker's own totals with what was enqueued."""
        (view,) = operator.client.queues(QUEUE)
        tasks = self._plan.tasks
        dead = sum(end_of(number) is TaskState.DEAD for number in range(tasks))
        left = view.ready + view.running + view.scheduled
        found = (view.enqueued_total, view.completed_total, view.dead_total, left)
        if found != (tasks, tasks - dead, dead, 0):
            raise Broken(f"of {tasks} tasks, of which {dead} must die, the broker counts {view}")

    @contextmanager
    def _proxied(self, url: str) -> Iterator[str]:
        port = url.rpartition(":")[2]
        command = [sys.executable, "-m", "bench.soak.proxy", port, str(self._plan.cut_every_s)]
        with Program.start(command, log=self._folder / "proxy.log") as proxy:
            yield f"tq://{proxy.read_line().removeprefix('listening on ')}"

    @contextmanager
    def _beside(self, name: str, work: Callable[[], None], stop: threading.Event | None = None) -> Iterator[None]:
        """Do *work* in a thread, which ends when *stop* (or else ``_stop``) is set; that it does not is a failure."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the soak ends
                self._failures.append(error)
                self._stop.set()

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            yield
        finally:
            (stop or self._stop).set()
            thread.join(_SETTLE_S_MAX)
            if thread.is_alive():
                self._failures.append(
                    Broken(
                        f"the thread of the {name} has not ended within {_SETTLE_S_MAX:g} s, its processes may live on"
                    )
                )

    def _torment(self, url: str) -> None:
        """Keep workers, and kill one or ask it to stop now and then, and start it again."""
        draw = random.Random(self._plan.tasks)  # noqa: S311 - which worker is next is no secret
        environment = {**environments.ours(), "TQ_URL": url}
        words = ("-A", "bench.soak.handlers", "--queues", f"{QUEUE},probe", "--drain-ms", "1000")

        def begin(number: int) -> Program:
            return start_worker(*words, log=self._folder / f"worker-{number}.log", environment=environment)

        workers: list[Program] = []
        try:
            for number in range(_WORKERS):
                workers.append(begin(number))  # noqa: PERF401 - should the second not begin, the first is to be ended
            while not self._stop.wait(self._plan.worker_every_s):
                number = draw.randrange(_WORKERS)
                _end(workers[number], signal.SIGKILL if draw.random() < 0.5 else signal.SIGTERM)
                # A log of its last life is enough.
                workers[number].log.unlink()
                workers[number] = begin(number)
                self.accidents += 1
        finally:
            for worker in workers:
                _end(worker, signal.SIGKILL)

    def _kill_broker(self, broker: KilledBroker, load: Load) -> None:
        """Kill the broker now and then, and start it again; the first time soon enough that the load is not over."""
        tasks, due = self._plan.tasks, time.monotonic() + self._plan.broker_every_s
        while not self._stop.wait(_LOOK_S):
            if self.broker_kills and load.ended > tasks / 4:
                return
            if time.monotonic() >= due or (not self.broker_kills and load.ended > tasks / 8):
                broker.kill()
                self.broker_kills += 1
                due = time.monotonic() + self._plan.broker_every_s

    def _watch(self, broker: KilledBroker, load: Load, probes: Probes, on_progress: Callable[[int], None]) -> None:
        """Take samples, and write each to samples.jsonl."""
        began = time.monotonic()
        with (self._folder / "samples.jsonl").open("wb") as file:
            while not self._stop.wait(self._plan.sample_every_s):
                probed = probes.take()
                files = _sizes(self._folder / "data")
                with broker.alive() as pid:
                    process = psutil.Process(pid)
                    rss, handles = process.memory_info().rss, process.num_fds()
                sample = Sample(
                    at_s=time.monotonic() - began,
                    tasks=load.ended,
                    accidents=self.accidents + self.broker_kills,
                    rss=rss,
                    handles=handles,
                    disk=sum(files.values()),
                    wal=sum(size for path, size in files.items() if path.suffix == ".log"),
                    log=broker.log.stat().st_size,
                    latency_ms=probed.median_ms,
                    probes_failed=probed.failed,
                )
                self.samples.append(sample)
                file.write(msgspec.json.encode(sample) + b"\n")
                file.flush()
                on_progress(load.ended)


def _end(worker: Program, how: signal.Signals) -> None:
    with worker:
        worker.end(how)


def _sizes(folder: Path) -> dict[Path, int]:
    """Return the sizes of the files that are there; one may be gone before it is looked at."""
    sizes = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes[path] = path.stat().st_size
    return sizes
