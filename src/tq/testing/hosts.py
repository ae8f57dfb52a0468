"""The hosts of a simulated world: a broker, workers and clients, each the real program on the simulated network.

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
from tq.client.async_client import AsyncClient
from tq.client.errors import ResultTimeout
from tq.core.errors import TransportError
from tq.core.outcome import TaskResult
from tq.testing.clock import Clock, SkewedClock
from tq.testing.dialer import SimulatedDialer
from tq.testing.network import Network
from tq.testing.simulated_store import Moment, SimulatedStore
from tq.testing.workload import QUEUES, Errand, Errands, Ledger, Life
from tq.worker.keeper import LoopKeeper
from tq.worker.worker import Worker

BROKER = "broker"
_RESTART_S = (0.1, 4.0)
_WORKER_RESTART_S = 1.0
_FRAME_TASKS_MAX = 15
_SINGLES_MAX = 5
_WAIT_S = 4.0


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
        log = Log(info=self._log, warning=self._log, error=self._log)
        sources = Sources(self.clock.wall, self.clock.monotonic, self._chance.random, lambda: 0)
        self._service = BrokerService(self.store, self._settings, sources, log)
        self._starting = asyncio.create_task(self._start(self._service), name="start the broker")
        self._starting.add_done_callback(self._has_started)

    async def _start(self, service: BrokerService) -> None:
        await service.start()
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
    """A worker, and the supervisor that starts it again."""

    def __init__(self, surroundings: Surroundings, name: str, chance: random.Random, ledger: Ledger) -> None:
        self.name = name
        self._world = surroundings
        self._chance = chance
        self._ledger = ledger
        self._concurrency = chance.choice((1, 2, 8))
        self._prefetch = chance.choice((None, 0, 4))
        self._worker: Worker | None = None
        self._restart: asyncio.TimerHandle | None = None
        # Cancelled ones take some turns of the loop to end.
        self._tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None]
        self._life: Life

    def start(self) -> None:
        """Start a process: a new session."""
        self._world.note(f"{self.name} starts")
        dialer = SimulatedDialer(self._world.network, self.name, [BROKER])
        self._life = Life(self.name, self.crash)
        self._worker = Worker(
            self._ledger.handlers(self._life),
            dialer,
            queues=[(queue, 1) for queue in QUEUES],
            concurrency=self._concurrency,
            prefetch=self._prefetch,
            name=self.name,
            entropy=self._chance.randbytes,
            draw=self._chance.random,
            keeper=LoopKeeper(dialer, self._chance.random),
        )
        self._task = asyncio.create_task(self._worker.run(), name=self.name)
        self._tasks.add(self._task)
        self._task.add_done_callback(self._has_ended)

    def _has_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.accuse(error)

    def crash(self) -> None:
        """Kill it, and start it again a second later."""
        if self._worker is None:
            return
        self._world.note(f"{self.name} crashes")
        self._worker = None
        self._world.network.crash(self.name)
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


class ClientHost:
    """A program that enqueues errands, and waits for some of their results."""

    def __init__(
        self, surroundings: Surroundings, name: str, chance: random.Random, errands: Errands, ledger: Ledger
    ) -> None:
        self.name = name
        self._world = surroundings
        self._chance = chance
        self._errands = errands
        self._ledger = ledger
        self._sent: list[Errand] = []
        self.results: list[tuple[Errand, TaskResult]] = []
        self.client = AsyncClient(
            SimulatedDialer(surroundings.network, name, [BROKER]),
            entropy=chance.randbytes,
            clock=surroundings.clock.wall,
        )

    async def run(self, steps: int, seconds: float) -> None:
        """Take so many steps, some time apart, in about so many seconds."""
        for _ in range(steps):
            await asyncio.sleep(self._chance.uniform(0, 2 * seconds / steps))
            step = self._chance.choice((self._send_frame, self._send_singles, self._wait))
            await step()

    async def _send_frame(self) -> None:
        errands = [self._errands.make() for _ in range(self._chance.randint(1, _FRAME_TASKS_MAX))]
        try:
            await self.client.enqueue_many([errand.task for errand in errands])
        except TransportError as error:
            self._doubt(errands, error)
        else:
            self._know(errands)

    async def _send_singles(self) -> None:
        await asyncio.gather(*(self._send_one() for _ in range(self._chance.randint(1, _SINGLES_MAX))))

    async def _send_one(self) -> None:
        errand = self._errands.make()
        try:
            await self.client.enqueue(errand.task)
        except TransportError as error:
            self._doubt([errand], error)
        else:
            self._know([errand])

    async def _wait(self) -> None:
        waited = [errand for errand in self._chance.sample(self._sent, min(len(self._sent), 5)) if errand.keeps_result]
        by_id = {errand.id: errand for errand in waited}
        try:
            async for result in self.client.wait_many(list(by_id), timeout=_WAIT_S):
                errand = by_id[result.id]  # type: ignore[index]  # a TaskResult's id is plain bytes
                self._world.note(f"{self.name} has the result of {errand}")
                errand.check(result)
                self.results.append((errand, result))
        except (ResultTimeout, TransportError) as error:
            self._world.note(f"{self.name} waited in vain: {type(error).__name__}")

    def _know(self, errands: list[Errand]) -> None:
        self._sent += errands
        self._ledger.acknowledged.update({errand.number: errand for errand in errands})
        self._world.note(f"{self.name} enqueued {', '.join(map(str, errands))}")

    def _doubt(self, errands: list[Errand], error: TransportError) -> None:
        self._ledger.doubtful.update({errand.number: errand for errand in errands})
        self._world.note(f"{self.name} doubts {', '.join(map(str, errands))}: {error}")
