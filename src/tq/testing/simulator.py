"""The simulator: one seed, one run of a whole system under faults, on virtual time.

    simulate(7)     a broker, workers and clients, all real but for network, disk, clock and child
                    processes; trouble for a while; then all is healed, and everything must come to its end

What is checked: the rows and the engine after commits (`tq.testing.invariants`), the order
of every hand-out and that no hand is idle (`tq.testing.order`), that nothing is told before it
is durable, that what was withdrawn is not handed out (`tq.testing.fates`), and in the end that
each task that was acknowledged has ended as it had to, once, and that no counter says otherwise
(`tq.testing.audit`).

Invariant: a run follows from its scenario; the same seed gives the same trace.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence

import msgspec

from tq.broker.config import BrokerSettings
from tq.broker.service import BrokerService
from tq.core.errors import StoreError
from tq.core.ids import IdMaker
from tq.engine import rows as r
from tq.testing.audit import Audit
from tq.testing.callers import ClientHost, Operator, until
from tq.testing.clock import ManualClock
from tq.testing.fates import Fates
from tq.testing.hosts import BROKER, BrokerHost, Surroundings, WorkerHost
from tq.testing.invariants import Rows, check_invariants
from tq.testing.loop import run_virtual
from tq.testing.network import Network
from tq.testing.order import check_hand_out
from tq.testing.scenario import FATE, HARMLESS, OPERATOR, TROUBLED_S, Act, Event, Fault, Scenario, Step, shrink
from tq.testing.simulated_store import Moment, SimulatedStore
from tq.testing.workload import SHORT_TTL_MS, Errands, Ledger, WentWrong

# Deaths of workers are noticed after a lease, poison kills twice: far more than it takes, and no more than that.
_DRAIN_S = 300.0
_TRACE_SHOWN = 80
_INSPECTED = 0.15
"""The share of commits after which all rows are checked."""
_HEARTBEAT_AND_LEASE_MS = ((2_000, 10_000), (500, 2_500), (400, 1_000))
_SOCKETS_READ_S = 0.01
_LEASES_END = r.key_end(r.LEASE + b"\xff" * 8)
# The slowest that the engine's clock goes, and then some: what is to be forgotten is gone by then.
_EXPIRED_S = 2 * SHORT_TTL_MS / 1_000 + 3


class SimulationFailed(AssertionError):
    """A seed has found something; the text has the seed, what went wrong and the end of the trace."""

    def __init__(self, scenario: Scenario, trace: Sequence[str], error: BaseException) -> None:
        shown = "\n".join(trace[-_TRACE_SHOWN:])
        self.cause = f"seed {scenario.seed}: {type(error).__name__}: {error}"
        super().__init__(f"{self.cause}\nthe last of {len(trace)} events:\n{shown}")
        self.scenario = scenario
        self.trace = trace
        self.kind = type(error).__name__


class Run(msgspec.Struct, frozen=True):
    """A run that went well: what happened, by time, and a digest of all of it and of the rows it left."""

    seed: int
    trace: Sequence[str]
    digest: str


def simulate(seed: int, faults: Sequence[Fault] | None = None, acts: Sequence[Act] | None = None) -> Run:
    """Run *seed*, with *faults* and an operator's *acts* (None: those that the seed draws).

    Raises:
        SimulationFailed: Something is wrong with the product, or with the simulator.
    """
    return run(Scenario.draw(seed, faults, acts))


def run(scenario: Scenario) -> Run:
    """Run *scenario*.

    Raises:
        SimulationFailed: Something is wrong with the product, or with the simulator.
    """
    clock = ManualClock()
    trace: list[str] = []

    def note(text: str) -> None:
        trace.append(f"{clock.monotonic():11.6f}  {text}")

    try:
        rows = run_virtual(_World.of(scenario, clock, note), clock)
    except BaseExceptionGroup as group:
        raise SimulationFailed(scenario, trace, group.exceptions[0]) from group
    except Exception as error:
        raise SimulationFailed(scenario, trace, error) from error
    digest = hashlib.sha256("\n".join([*trace, *(f"{key.hex()} {rows[key].hex()}" for key in rows)]).encode())
    return Run(scenario.seed, trace, digest.hexdigest())


def shrunk(failure: SimulationFailed) -> SimulationFailed:
    """Return the failure of the smallest scenario found that goes wrong in the same way."""
    smallest = failure

    def fails(scenario: Scenario) -> bool:
        nonlocal smallest
        try:
            run(scenario)
        except SimulationFailed as other:
            if other.kind == failure.kind:
                smallest = other
                return True
        return False

    shrink(failure.scenario, fails)
    return smallest


class _World:
    """All hosts, and the fate of them."""

    def __init__(self, scenario: Scenario, clock: ManualClock, note: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._clock = clock
        self._note = note
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._network = Network(scenario.chance("network"))
        ids = IdMaker(clock.wall, scenario.chance("ids").randbytes)
        self._errands = Errands(ids.make, clock.monotonic)
        self._ledger = Ledger(self._errands, note, self._accuse)
        self._fates = Fates(self._ledger, clock.monotonic)
        surroundings = Surroundings(self._network, clock, note, self._accuse)
        heartbeat_ms, lease_ms = scenario.chance("leases").choice(_HEARTBEAT_AND_LEASE_MS)
        settings = BrokerSettings(heartbeat_ms=heartbeat_ms, lease_ms=lease_ms)
        self._broker = BrokerHost(surroundings, scenario.chance(BROKER), settings, self._inspect)
        self._workers = [
            WorkerHost(surroundings, name, scenario.chance(name), self._ledger) for name in scenario.worker_names
        ]
        self._clients = [
            ClientHost(surroundings, name, scenario, self._errands, self._ledger, self._fates)
            for name in scenario.client_names
        ]
        self._operator = Operator(surroundings, OPERATOR, scenario, self._ledger, self._fates, self._errands)
        self._audit = Audit(
            self._operator.client,
            self._ledger,
            self._fates,
            is_calm=HARMLESS.issuperset(scenario.faults),
            is_steady=Fault.WALL not in scenario.faults,
        )
        self._inspections = scenario.chance("inspections")
        self._token = 0

    def _accuse(self, error: BaseException) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    @classmethod
    async def of(cls, scenario: Scenario, clock: ManualClock, note: Callable[[str], None]) -> dict[bytes, bytes]:
        """Live through one run and return the rows that are left."""
        world = cls(scenario, clock, note)
        living = asyncio.create_task(world._live(), name="the world")
        try:
            await asyncio.wait([living, world._broken], return_when=asyncio.FIRST_COMPLETED)
            if world._broken.done():
                world._broken.result()
            living.result()
        finally:
            living.cancel()
            await world._end()
        return Rows(world._broker.store).all

    async def _live(self) -> None:
        self._broker.start()
        for worker in self._workers:
            worker.start()
        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(client.run(), name=client.name)
            group.create_task(self._operator.run(), name=OPERATOR)
            group.create_task(self._strike(), name=FATE)
        self._note("the trouble is over, all is healed")
        async with asyncio.timeout(_DRAIN_S):
            await self._operator.resume_all()
            await self._until_drained()
        told = [result for client in self._clients for result in client.results]
        views = await self._audit.check(told)
        self._broker.crash(keep=0)
        if await self._audit.check(told) != views:
            raise WentWrong("a crash at rest changed what the broker tells")
        await asyncio.sleep(_EXPIRED_S)
        await self._audit.check_over()
        for worker in self._workers:
            await worker.stop()

    async def _until_drained(self) -> None:
        while True:
            if await self._audit.is_drained():
                return
            await asyncio.sleep(1)

    async def _end(self) -> None:
        """Leave nothing behind that still runs."""
        for worker in self._workers:
            worker.end()
        self._broker.end()
        for client in self._clients:
            await client.close()
        await self._operator.client.close()
        await asyncio.sleep(1)

    # ------------------------------------------------------------------ faults

    async def _strike(self) -> None:
        """Let the faults strike; in the end heal what is not healed yet."""
        for event in self._scenario.of(FATE):
            await until(event)
            self._note(f"fault: {event.what.value}")
            await self._befall(event)
        await asyncio.sleep(max(0.0, TROUBLED_S - self._clock.monotonic()))
        self._network.heal()
        self._broker.store.resume()

    async def _befall(self, event: Event) -> None:
        chance, broker, network = self._scenario.numbered(event.number), self._broker, self._network
        loop = asyncio.get_running_loop()
        match event.what:
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
                # What came meanwhile lies in its sockets: it is there to be read before the next suspension.
                await asyncio.sleep(_SOCKETS_READ_S)
            case Fault.WALL:
                broker.wall.jump(chance.choice((-1, 1)) * chance.randint(1_000, 300_000))
            case Fault.CLIENT_WALL:
                for client in self._clients:
                    client.clock.jump(chance.choice((-1, 1)) * chance.randint(1_000, 60_000))
            case Fault.DROP:
                # At a commit there is somebody who waits for an answer.
                if chance.random() < 0.5:
                    self._drop(chance)
                else:
                    broker.at_next_commit = lambda: self._drop(chance)
            case Fault.PART:
                hosts = [BROKER, *self._scenario.worker_names, *self._scenario.client_names]
                network.part(chance.choice(hosts), one_way=chance.random() < 0.3)
                loop.call_later(chance.uniform(0.1, 20), network.heal)
            case Fault.WORKER:
                chance.choice(self._workers).crash()
            case Fault.CHILD:
                chance.choice(self._workers).kill_child()
            case Step() | Act():
                raise AssertionError("fate sends faults")

    def _drop(self, chance: random.Random) -> None:
        connections = self._network.connections()
        for connection in chance.sample(connections, chance.randint(0, len(connections))):
            connection.drop()

    # ------------------------------------------------------------------ checks

    def _inspect(self, service: BrokerService, store: SimulatedStore) -> None:
        """Check what a batch has written."""
        found = store.scan(r.LEASE + r.u64(self._token + 1), _LEASES_END, 10_000)
        if found:
            fresh = {int.from_bytes(key[1:], "big"): r.decode_lease(value) for key, value in found}
            self._token = max(fresh)
            rows = Rows(store)
            check_hand_out(rows, service.engine, fresh, is_complete=not self._broker.is_stopping)
            for lease in fresh.values():
                for key in lease.keys:
                    if key is not None:
                        self._fates.handed_out(self._errands.by_id[rows.ready[key].id])
        if self._inspections.random() < _INSPECTED:
            check_invariants(store, service.engine)
