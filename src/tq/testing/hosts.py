"""The hosts of a simulated world: a broker and workers, each the real program on the simulated network.

Invariant: what a host does follows from its own `random.Random` and from what reaches it;
after its crash nothing of it acts any more, and it comes back as a new process would.
"""

import asyncio
import random
from collections.abc import Callable

import msgspec

from tq.broker.config import BrokerSettings
from tq.broker.service import BrokerService
from tq.broker.sources import Log, Sources
from tq.testing.clock import Clock, SkewedClock
from tq.testing.dialer import SimulatedDialer
from tq.testing.network import Network
from tq.testing.simulated_pool import ChildrenOf, SimulatedWorker
from tq.testing.simulated_store import Moment, SimulatedStore
from tq.testing.workload import QUEUES, Ledger, Life
from tq.worker.keeper import LoopKeeper

BROKER = "broker"
_RESTART_S = (0.1, 4.0)
_WORKER_RESTART_S = 1.0


class Surroundings(msgspec.Struct, frozen=True):
    """What a host stands in.  *note* writes into the trace; *accuse* ends the run with an error."""

    network: Network
    clock: Clock
    note: Callable[[str], None]
    accuse: Callable[[BaseException], None]


class PausableClock:
    """The clock of a host that may be suspended: it stands still meanwhile, and then is right again at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopped: tuple[int, float] | None = None

    def wall(self) -> int:
        """Return milliseconds since the epoch."""
        return self._stopped[0] if self._stopped else self._clock.wall()

    def monotonic(self) -> float:
        """Return seconds since some moment of the past."""
        return self._stopped[1] if self._stopped else self._clock.monotonic()

    def pause(self) -> None:
        """Stand still."""
        self._stopped = self._clock.wall(), self._clock.monotonic()

    def resume(self) -> None:
        """Go on, with what the clock behind it says."""
        self._stopped = None


class BrokerHost:
    """The broker and its disk.  *inspect* is called when a batch has been written, before anything of it is said."""

    def __init__(
        self,
        surroundings: Surroundings,
        chance: random.Random,
        settings: BrokerSettings,
        inspect: Callable[[BrokerService, SimulatedStore], None],
    ) -> None:
        self._world = surroundings
        self._chance = chance
        self._settings = settings
        self._inspect = inspect
        self.is_stopping = False
        """Whether it hands nothing out any more."""
        self.at_next_commit: Callable[[], None] | None = None
        """Called once, at the next boundary of a commit."""
        self._crash_in: tuple[Moment, int] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self.wall = SkewedClock(surroundings.clock)
        self.clock = PausableClock(self.wall)
        self.store = SimulatedStore(
            asyncio.get_running_loop().call_later,
            sync_s=lambda: chance.choice((0.000_2, 0.000_5, 0.02)),
            watch=self._watch,
        )
        self._service: BrokerService | None = None

    def start(self) -> None:
        """Start the process."""
        self._world.note("broker starts")
        self.is_stopping = False
        log = Log(info=self._log, warning=self._log, error=self._log)
        sources = Sources(self.clock.wall, self.clock.monotonic, self._chance.random, lambda: 0)
        self._service = BrokerService(self.store, self._settings, sources, log)
        self._starting = asyncio.create_task(self._start(self._service), name="start the broker")
        self._starting.add_done_callback(self._has_started)

    async def _start(self, service: BrokerService) -> None:
        await service.start()
        if service is not self._service:
            return  # It crashed at its own first commit, in its last step here.
        assert service.failed is not None, "a service that has started can fail"
        service.failed.add_done_callback(lambda failed: self._has_failed(service, failed))
        self._world.network.listen(BROKER, service.connection)

    def _has_started(self, starting: "asyncio.Task[None]") -> None:
        if not starting.cancelled() and (error := starting.exception()) is not None:
            self._exit(error)

    def _has_failed(self, service: BrokerService, failed: "asyncio.Future[None]") -> None:
        error = failed.exception()
        if service is self._service and error is not None:
            self._exit(error)

    def _exit(self, error: BaseException) -> None:
        """End as the program does when the service has failed; only a broken disk excuses it."""
        if self.store.health().failure is None:
            self._world.accuse(error)
        self.crash()

    def _log(self, event: str, **values: object) -> None:
        told = ", ".join(f"{name}={value}" for name, value in values.items() if name != "exc_info")
        self._world.note(f"broker logs {event} {told}")

    def _watch(self, moment: Moment) -> None:
        service = self._service
        assert service is not None, "a commit without a broker"
        self._world.note(f"commit {moment.value}, {self.store.unsynced} unsynced")
        if moment is Moment.WRITTEN:
            try:
                self._inspect(service, self.store)
            except Exception as error:  # noqa: BLE001 - else the broker would take it for its own
                self._world.accuse(error)
        if self.at_next_commit is not None:
            strike, self.at_next_commit = self.at_next_commit, None
            strike()
        if self._crash_in is not None and moment is self._crash_in[0]:
            left = self._crash_in[1] - 1
            self._crash_in = moment, left
            if left <= 0:
                self.crash()

    # ------------------------------------------------------------------ what befalls it

    def crash_in(self, moment: Moment, count: int) -> None:
        """Let it crash at the *count*-th such moment from now."""
        self._crash_in = moment, count

    def crash(self, keep: int | None = None) -> None:
        """Kill it, and start it again some time later, with *keep* unsynced batches (None: any number)."""
        if self._service is None:
            return
        keep = self._chance.randint(0, self.store.unsynced) if keep is None else keep
        self._world.note(f"broker crashes, keeps {keep} of {self.store.unsynced} unsynced batches")
        self._crash_in = None
        self._end(keep)

    async def stop(self) -> None:
        """Stop it in good order, and start it again some time later."""
        service = self._service
        if service is None:
            return
        self._world.note("broker stops")
        self.is_stopping = True
        self._world.network.stop_listening(BROKER)
        await service.stop()
        if service is self._service:
            self._end(self.store.unsynced)

    def _end(self, keep: int) -> None:
        assert self._service is not None
        assert self._starting is not None
        self._service.kill()
        self._service = None
        self._starting.cancel()
        self._world.network.crash(BROKER)
        self.store = self.store.crash(keep=keep, watch=self._watch)
        self._restart = asyncio.get_running_loop().call_later(self._chance.uniform(*_RESTART_S), self.start)

    def end(self) -> None:
        """Let it be gone for good; the disk stays as it is now."""
        self.crash(keep=self.store.unsynced)
        if self._restart is not None:
            self._restart.cancel()


class WorkerHost:
    """A worker, and the supervisor that starts it again.

    The first serves all queues, the others some; their weights, pools and limits are their own.
    """

    def __init__(self, surroundings: Surroundings, name: str, chance: random.Random, ledger: Ledger) -> None:
        self.name = name
        self._world = surroundings
        self._chance = chance
        self._ledger = ledger
        self._concurrency = chance.choice((1, 2, 8))
        self._prefetch = chance.choice((None, 0, 4))
        self._has_children = chance.random() < 0.3
        self._child_tasks_max = chance.choice((None, 1, 5))
        served = len(QUEUES) if name == "worker-1" or chance.random() < 0.6 else chance.randint(1, len(QUEUES))
        self._weighted = chance.random() < 0.4
        self._queues = [
            (queue, chance.randint(1, 5) if self._weighted else 1) for queue in chance.sample(QUEUES, served)
        ]
        self._worker: SimulatedWorker | None = None
        self._restart: asyncio.TimerHandle | None = None
        # Cancelled ones take some turns of the loop to end.
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None]
        self._life: Life
        self._dialer: SimulatedDialer

    def start(self) -> None:
        """Start a process: a new session."""
        pool = "process" if self._has_children else "async"
        told = ", ".join(f"{queue}:{weight}" for queue, weight in self._queues)
        self._world.note(f"{self.name} starts, {self._concurrency} at a time, pool {pool}, of {told}")
        self._dialer = dialer = SimulatedDialer(self._world.network, self.name, [BROKER])
        self._life = Life(self.name, self.crash, has_children=self._has_children)
        registry = self._ledger.handlers(self._life)
        self._worker = SimulatedWorker(
            registry,
            dialer,
            queues=self._queues,
            weighted=self._weighted,
            concurrency=self._concurrency,
            pool=pool,
            prefetch=self._prefetch,
            name=self.name,
            app="simulated:app",
            entropy=self._chance.randbytes,
            draw=self._chance.random,
            keeper=LoopKeeper(dialer, self._chance.random),
            children=ChildrenOf(registry, self._chance, self._child_tasks_max),
        )
        self._task = asyncio.create_task(self._worker.run(), name=self.name)
        self._tasks.add(self._task)
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._world.accuse(error)

    def kill_child(self) -> None:
        """Kill a child process of it, if it has any."""
        pid = self._worker.kill_child() if self._worker is not None else None
        if pid is not None:
            self._world.note(f"{self.name} loses its child {pid}")

    def crash(self) -> None:
        """Kill it, and start it again a second later."""
        if self._worker is None:
            return
        self._world.note(f"{self.name} crashes")
        self._worker = None
        self._world.network.crash(self.name)
        # A worker that is cancelled leaves in good order; one that is dead reaches nobody with it.
        self._dialer.die()
        self._task.cancel()
        self._life.end()
        self._restart = asyncio.get_running_loop().call_later(_WORKER_RESTART_S, self.start)

    async def stop(self) -> None:
        """Let it leave in good order, for good."""
        if self._worker is not None:
            self._worker.request_stop()
            await asyncio.wait([self._task])

    def end(self) -> None:
        """Let it be gone for good."""
        self.crash()
        if self._restart is not None:
            self._restart.cancel()
