"""The simulator: one seed, one run of a whole system under faults, on virtual time.

    simulate(7)     a broker, workers and clients, all real but for network, disk and clock;
                    faults for a while; then all is healed, and everything must come to its end

What is checked: the rows and the engine after commits (`tq.testing.invariants`), the order
of every hand-out, that nothing is told before it is durable, and in the end that each task
that was acknowledged has ended as it had to, once, and that no counter says otherwise.

Invariant: a run follows from its seed; the same seed gives the same trace.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

from tq.broker.config import BrokerSettings
from tq.broker.service import BrokerService
from tq.core.errors import StoreError
from tq.core.ids import IdMaker
from tq.core.task import TaskView
from tq.engine import rows as r
from tq.protocol.messages import Stats
from tq.testing.clock import ManualClock
from tq.testing.hosts import BROKER, BrokerHost, ClientHost, Surroundings, WorkerHost
from tq.testing.invariants import Rows, check_invariants, suspects_of
from tq.testing.loop import run_virtual
from tq.testing.network import Network
from tq.testing.simulated_store import Moment, SimulatedStore
from tq.testing.workload import Errand, Errands, Kind, Ledger, WentWrong

_FAULTS_S = 25.0
_FAULTS_MAX = 8
_STEPS = 12
# Deaths of workers are noticed after a lease, poison kills twice: far more than it takes, and no more than that.
_DRAIN_S = 300.0
_TRACE_SHOWN = 80
_INSPECTED = 0.25
"""The share of commits after which all rows are checked."""
_HEARTBEAT_AND_LEASE_MS = ((2_000, 10_000), (500, 2_500), (400, 1_000))
_LEASES_END = r.key_end(r.LEASE + b"\xff" * 8)


class Fault(Enum):
    """What may befall the world."""

    CRASH_AT_COMMIT = "broker crash at a commit"
    CRASH = "broker crash"
    STOP = "broker stop"
    FAILED_SYNC = "failed sync"
    STALL = "disk stall"
    PAUSE = "broker suspended"
    WALL = "wall clock jump"
    DROP = "connections dropped"
    PART = "partition"
    WORKER = "worker crash"


# A worker that lives loses nothing by these: time that the broker did not hear is not held against it.
_HARMLESS = frozenset({Fault.STALL, Fault.PAUSE, Fault.WALL})


class SimulationFailed(AssertionError):
    """A seed has found something; the text has the seed, what went wrong and the end of the trace."""


class Run(msgspec.Struct, frozen=True):
    """A run that went well: what happened, by time, and a digest of all of it and of the rows it left."""

    seed: int
    trace: Sequence[str]
    digest: str


def simulate(seed: int, faults: Sequence[Fault] | None = None) -> Run:
    """Run *seed*, with *faults* (None: those that the seed draws).

    Raises:
        SimulationFailed: Something is wrong with the product, or with the simulator.
    """
    clock = ManualClock()
    trace: list[str] = []

    def note(text: str) -> None:
        trace.append(f"{clock.monotonic():11.6f}  {text}")

    try:
        rows = run_virtual(_World.of(seed, clock, note, faults), clock)
    except BaseExceptionGroup as group:
        raise _failure(seed, trace, group.exceptions[0]) from group
    except Exception as error:
        raise _failure(seed, trace, error) from error
    # A worker's row names its process, which is another one each time.
    left = [f"{key.hex()} {'' if key.startswith(r.WORKER) else row.hex()}" for key, row in rows.items()]
    digest = hashlib.sha256("\n".join([*trace, *left]).encode())
    return Run(seed, trace, digest.hexdigest())


def _failure(seed: int, trace: list[str], error: BaseException) -> SimulationFailed:
    shown = "\n".join(trace[-_TRACE_SHOWN:])
    return SimulationFailed(f"seed {seed}: {type(error).__name__}: {error}\nthe last of {len(trace)} events:\n{shown}")


class _World:
    """All hosts, and the fate of them."""

    def __init__(self, seed: int, clock: ManualClock, note: Callable[[str], None]) -> None:
        self._seed = seed
        self._clock = clock
        self._note = note
        self._chance = self._new_chance("faults")
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._network = Network(self._new_chance("network"))
        self._errands = Errands(
            self._new_chance("errands"), IdMaker(clock.wall, self._new_chance("ids").randbytes).make
        )
        self._ledger = Ledger(self._errands, note, self._accuse)
        surroundings = Surroundings(self._network, clock, note, self._accuse)
        heartbeat_ms, lease_ms = self._chance.choice(_HEARTBEAT_AND_LEASE_MS)
        settings = BrokerSettings(heartbeat_ms=heartbeat_ms, lease_ms=lease_ms)
        self._broker = BrokerHost(surroundings, self._new_chance(BROKER), settings, self._inspect)
        self._workers = [
            WorkerHost(surroundings, name, self._new_chance(name), self._ledger)
            for name in ("worker-1", "worker-2", "worker-3")[: self._chance.randint(2, 3)]
        ]
        self._clients = [
            ClientHost(surroundings, name, self._new_chance(name), self._errands, self._ledger)
            for name in ("client-1", "client-2")
        ]
        self._auditor = ClientHost(surroundings, "auditor", self._new_chance("auditor"), self._errands, self._ledger)
        self._inspections = self._new_chance("inspections")
        self._token = 0

    def _new_chance(self, purpose: str) -> random.Random:
        # One for each, so that a change in one part shifts as little as may be of the others.
        return random.Random(f"{self._seed} {purpose}")  # noqa: S311 - a simulation, no secret

    def _accuse(self, error: BaseException) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    @classmethod
    async def of(
        cls, seed: int, clock: ManualClock, note: Callable[[str], None], faults: Sequence[Fault] | None
    ) -> dict[bytes, bytes]:
        """Live through one run and return the rows that are left."""
        world = cls(seed, clock, note)
        living = asyncio.create_task(world._live(faults), name="the world")
        try:
            await asyncio.wait([living, world._broken], return_when=asyncio.FIRST_COMPLETED)
            if world._broken.done():
                world._broken.result()
            living.result()
        finally:
            living.cancel()
            await world._end()
        return Rows(world._broker.store).all

    async def _live(self, faults: Sequence[Fault] | None) -> None:
        if faults is None:
            faults = self._chance.choices(list(Fault), k=self._chance.randint(0, _FAULTS_MAX))
        self._broker.start()
        for worker in self._workers:
            worker.start()
        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(client.run(_STEPS, _FAULTS_S), name=client.name)
            group.create_task(self._strike(faults), name="faults")
        self._note("the faults are over, all is healed")
        async with asyncio.timeout(_DRAIN_S):
            await self._until_drained()
        is_calm = _HARMLESS.issuperset(faults)
        views = await self._audit(is_calm=is_calm)
        self._broker.crash(keep=0)
        if await self._audit(is_calm=is_calm) != views:
            raise WentWrong("a crash at rest changed what the broker tells")
        for worker in self._workers:
            await worker.stop()

    async def _end(self) -> None:
        """Leave nothing behind that still runs."""
        for worker in self._workers:
            worker.end()
        self._broker.end()
        for client in (*self._clients, self._auditor):
            await client.client.close()
        await asyncio.sleep(1)

    # ------------------------------------------------------------------ faults

    async def _strike(self, faults: Sequence[Fault]) -> None:
        """Let *faults* strike, some time apart; in the end heal what is not healed yet."""
        for fault in faults:
            await asyncio.sleep(self._chance.expovariate(len(faults) / _FAULTS_S))
            self._note(f"fault: {fault.value}")
            await self._befall(fault)
        await asyncio.sleep(self._chance.uniform(0, 5))
        self._network.heal()
        self._broker.store.resume()

    async def _befall(self, fault: Fault) -> None:
        chance, broker, network = self._chance, self._broker, self._network
        loop = asyncio.get_running_loop()
        match fault:
            case Fault.CRASH_AT_COMMIT:
                broker.crash_in(chance.choice(list(Moment)), chance.randint(1, 12))
            case Fault.CRASH:
                broker.crash()
            case Fault.STOP:
                await broker.stop()
            case Fault.FAILED_SYNC:
                broker.store.fail_next_sync(StoreError("the disk returned an input/output error"))
            case Fault.STALL:
                stalled = broker.store
                stalled.stall()
                loop.call_later(chance.uniform(0.1, 15), stalled.resume)
            case Fault.PAUSE:
                network.part(BROKER)
                broker.clock.pause()
                await asyncio.sleep(chance.uniform(0.5, 3))
                broker.clock.resume()
                network.heal()
                # All that was due while it was away is due now, in one turn of the loop.
                self._clock.advance(0.3)
            case Fault.WALL:
                broker.wall.jump(chance.choice((-1, 1)) * chance.randint(1_000, 300_000))
            case Fault.DROP:
                connections = network.connections()
                for connection in chance.sample(connections, chance.randint(0, len(connections))):
                    connection.drop()
            case Fault.PART:
                network.part(self._some_host(), one_way=chance.random() < 0.3)
                loop.call_later(chance.uniform(0.1, 20), network.heal)
            case Fault.WORKER:
                chance.choice(self._workers).crash()

    def _some_host(self) -> str:
        names = [BROKER, *(worker.name for worker in self._workers), *(client.name for client in self._clients)]
        return self._chance.choice(names)

    # ------------------------------------------------------------------ checks

    def _inspect(self, service: BrokerService, store: SimulatedStore) -> None:
        """Check what a batch has written."""
        fresh = store.scan(r.LEASE + r.u64(self._token + 1), _LEASES_END, 10_000)
        if fresh:
            self._token = int.from_bytes(fresh[-1][0][1:], "big")
            # What the engine alone knows of a suspect: that workers died with it before they could say it had started.
            self._check_order(Rows(store), {key for key, _ in fresh}, suspects_of(service.engine))
        if self._inspections.random() < _INSPECTED:
            check_invariants(store, service.engine)

    @staticmethod
    def _check_order(rows: Rows, fresh: set[bytes], suspects: set[bytes]) -> None:
        """What was handed out came before what is left, by priority and then by age; suspects have their own ways."""
        given = [
            key
            for token, lease in rows.leases.items()
            if r.LEASE + r.u64(token) in fresh and not lease.alone
            for key in lease.keys
            if key is not None
        ]
        left = [
            key
            for key, record in rows.ready.items()
            if key not in rows.leased and not record.losses and key not in suspects
        ]
        last = max(((r.flow_of(key).rank, r.seq_of(key)) for key in given), default=(0, 0))
        first = min(((r.flow_of(key).rank, r.seq_of(key)) for key in left), default=last)
        if first < last:
            raise WentWrong(f"out of order: (rank, seq) {last} was handed out, {first} is left")

    async def _until_drained(self) -> None:
        while True:
            stats = await self._auditor.client.stats()
            if not stats.ready + stats.running + stats.scheduled:
                return
            await asyncio.sleep(1)

    async def _audit(self, *, is_calm: bool) -> list[TaskView | None]:
        """Compare what the broker tells with what happened."""
        ledger = self._ledger
        errands = [*ledger.acknowledged.values(), *ledger.doubtful.values()]
        views = await self._auditor.client.get([errand.id for errand in errands])
        known = [errand for errand, view in zip(errands, views, strict=True) if self._is_known(errand, view)]
        self._check_totals(await self._auditor.client.stats(), known)
        by_number = {errand.number: view for errand, view in zip(errands, views, strict=True)}
        for errand, result in (pushed for client in self._clients for pushed in client.results):
            view = by_number[errand.number]
            told = (result.state, result.finished_at, result.result, result.attempts, result.losses)
            if view is None or told != (view.state, view.finished_at, view.result, view.attempts, view.losses):
                raise WentWrong(f"{errand}: a client was told {told}, the broker keeps {view}")
        if is_calm:
            self._check_calm(await self._auditor.client.stats(), known)
        return views

    def _is_known(self, errand: Errand, view: TaskView | None) -> bool:
        """Check the end of one errand; tells whether it was enqueued at all."""
        ledger = self._ledger
        if view is not None:
            errand.check(view)
            ledger.check(errand, view)
            return True
        if errand.number in ledger.doubtful and not ledger.begun[errand.number]:
            return False
        if errand.keeps_result or not errand.succeeds:
            raise WentWrong(f"{errand}: the broker does not know it")
        if not ledger.returned[errand.number]:
            raise WentWrong(f"{errand}: it is gone, and was never run to its end")
        return True

    def _check_calm(self, stats: Stats, known: list[Errand]) -> None:
        """No lease was lost, and nothing was begun in vain, where no worker had an accident."""
        if any(errand.kind is Kind.POISON for errand in known):
            return
        if stats.lost_total:
            raise WentWrong(f"{stats.lost_total} leases were lost, and no worker has died or was out of reach")
        for errand in known:
            begun, tries = self._ledger.begun[errand.number], errand.times + errand.succeeds
            if begun != tries:
                raise WentWrong(f"{errand}: begun {begun} times without an accident, should be {tries} times")

    @staticmethod
    def _check_totals(stats: Stats, known: list[Errand]) -> None:
        found = (stats.enqueued_total, stats.completed_total, stats.failed_total, stats.dead)
        succeeding = sum(errand.succeeds for errand in known)
        expected = (len(known), succeeding, sum(errand.times for errand in known), len(known) - succeeding)
        if found != expected:
            raise WentWrong(f"enqueued, completed, failed, dead: the broker counts {found}, there were {expected}")
