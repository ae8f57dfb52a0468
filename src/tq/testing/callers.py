"""Who calls the simulated broker: clients that enqueue errands, and an operator who interferes.

Each is the real client on the simulated network.  What they were told goes into the ledger
and the fates, what they were not told as a doubt.

Invariant: what a caller does in an event follows from the event's chance, and from what it
was told before.
"""

import asyncio
import random
from collections.abc import Sequence

from tq.client.async_client import AsyncClient
from tq.client.errors import EnqueueRefused, ResultTimeout
from tq.core.errors import BrokerError, ErrorCode, QueueNotFound, TaskNotFound, TransportError
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.task import TaskView
from tq.protocol.messages import DeadAction, QueueAction
from tq.testing.clock import SkewedClock
from tq.testing.dialer import SimulatedDialer
from tq.testing.fates import Fates
from tq.testing.hosts import BROKER, Surroundings
from tq.testing.scenario import Act, Event, Fault, Scenario, Step
from tq.testing.workload import PURGED, QUEUES, Errand, Errands, Ledger, WentWrong

_SINGLES_MAX = 5
_WAIT_S = 4.0
_RESTART_S = 0.5
_CANCELLED_MAX = 6
# A crash may come before anything is sent, while it travels, while it is committed, or after all is told.
_CRASH_WITHIN_S = (0.0, 0.001, 0.03, 1.0)


class ClientHost:
    """A program that enqueues errands, and waits for some of their results."""

    def __init__(
        self,
        surroundings: Surroundings,
        name: str,
        scenario: Scenario,
        errands: Errands,
        ledger: Ledger,
        fates: Fates,
    ) -> None:
        self.name = name
        self._world = surroundings
        self._scenario = scenario
        self._errands = errands
        self._ledger = ledger
        self._fates = fates
        self._sent: list[Errand] = []
        self._dead: list[asyncio.Task[None]] = []
        self._ids = scenario.chance(name)
        self.clock = SkewedClock(surroundings.clock)
        self.results: list[tuple[Errand, TaskResult]] = []
        self.client = self._start()

    def _start(self) -> AsyncClient:
        dialer = SimulatedDialer(self._world.network, self.name, [BROKER])
        return AsyncClient(dialer, entropy=self._ids.randbytes, clock=self.clock.wall)

    async def run(self) -> None:
        """Do what is planned for it, each step at its instant or as soon as the one before is over."""
        for event in self._scenario.of(self.name):
            await until(event)
            chance = self._scenario.numbered(event.number)
            match event.what:
                case Step.FRAME:
                    await self._send_frame(self._make(chance))
                case Step.SINGLES:
                    await asyncio.gather(*(self._send_one(errand) for errand in self._make(chance, _SINGLES_MAX)))
                case Step.WAIT:
                    await self._wait(chance)
                case Step.CRASH:
                    await self._crash(chance, self._make(chance))
                case Fault() | Act():
                    raise AssertionError("a client takes steps")

    async def close(self) -> None:
        """Close its connection, and let go of those of former lives."""
        await self.client.close()
        for ending in self._dead:
            ending.cancel()
        if self._dead:
            await asyncio.wait(self._dead)

    def _make(self, chance: random.Random, tasks_max: int | None = None) -> list[Errand]:
        most = self._scenario.frame_tasks_max
        count = chance.randint(1, tasks_max or most)
        return [self._errands.make(chance) for _ in range(min(count, most))]

    async def _send_frame(self, errands: list[Errand]) -> None:
        try:
            await self.client.enqueue_many([errand.task for errand in errands])
        except TransportError as error:
            self._doubt(errands, error)
        else:
            self._know(errands)

    async def _send_one(self, errand: Errand) -> None:
        try:
            await self.client.enqueue(errand.task)
        except TransportError as error:
            self._doubt([errand], error)
        else:
            self._know([errand])

    async def _wait(self, chance: random.Random) -> None:
        waited = [errand for errand in chance.sample(self._sent, min(len(self._sent), 5)) if errand.ttl_ms]
        by_id = {errand.id: errand for errand in waited}
        try:
            async for result in self.client.wait_many(list(by_id), timeout=_WAIT_S):
                errand = by_id[result.id]  # type: ignore[index]  # a TaskResult's id is plain bytes
                self._world.note(f"{self.name} has the result of {errand}: {result.state.value}")
                self._fates.check_result(errand, result)
                self.results.append((errand, result))
        except (ResultTimeout, TransportError) as error:
            self._world.note(f"{self.name} waited in vain: {type(error).__name__}")
        except TaskNotFound:
            if all(errand.is_kept and self._fates.is_left_alone(errand) for errand in waited):
                raise
            self._world.note(f"{self.name} waited for what is not known any more")

    async def _crash(self, chance: random.Random, errands: list[Errand]) -> None:
        """Die while a frame is sent, or soon after; then ask what became of it, or send its tasks again."""
        # One that may have ended, and been forgotten, meanwhile would be taken for a new one.
        safe = [errand for errand in errands if errand.is_kept and errand.queue != PURGED]
        self._ledger.sent_again.update(errand.number for errand in safe)
        sending = asyncio.create_task(self._send_frame(errands), name=f"{self.name} sends")
        await asyncio.wait([sending], timeout=chance.uniform(0, chance.choice(_CRASH_WITHIN_S)))
        self._world.note(f"{self.name} crashes{'' if sending.done() else ' while enqueuing'}")
        self._world.network.crash(self.name)
        if not sending.done():
            self._ledger.doubt(errands)
            sending.cancel()
        # What it was about to do ends; it never hears of the end of its connections, and waits for that.
        self._dead.append(asyncio.create_task(self.client.close(), name=f"{self.name} is dead"))
        self.client = self._start()
        await asyncio.wait([sending])
        await asyncio.sleep(_RESTART_S)
        if chance.random() < 0.5:
            await self._ask(errands)
        elif safe:
            await self._send_again(safe)

    async def _ask(self, errands: list[Errand]) -> None:
        try:
            views = await self.client.get([errand.id for errand in errands])
        except TransportError:
            return
        known = [errand for errand, view in zip(errands, views, strict=True) if view is not None]
        self._world.note(f"{self.name} asks, {len(known)} of {len(errands)} are known")
        self._know(known)

    async def _send_again(self, errands: list[Errand]) -> None:
        try:
            await self.client.enqueue_many([errand.task for errand in errands])
        except TransportError as error:
            self._world.note(f"{self.name} could not send again: {error}")
            return
        except EnqueueRefused as refusal:
            if {refused.code for refused in refusal.refused} != {ErrorCode.DUPLICATE_TASK}:
                raise
        self._know(errands)

    def _know(self, errands: list[Errand]) -> None:
        self._sent += errands
        self._ledger.know(errands)
        self._world.note(f"{self.name} enqueued {', '.join(map(str, errands))}")

    def _doubt(self, errands: list[Errand], error: TransportError) -> None:
        self._ledger.doubt(errands)
        self._world.note(f"{self.name} doubts {', '.join(map(str, errands))}: {error}")


class Operator:
    """Somebody with the rights of an operator: cancels, purges, pauses and resumes, redrives and forgets."""

    def __init__(
        self, surroundings: Surroundings, name: str, scenario: Scenario, ledger: Ledger, fates: Fates, errands: Errands
    ) -> None:
        self._world = surroundings
        self._name = name
        self._scenario = scenario
        self._ledger = ledger
        self._fates = fates
        self._errands = errands
        self.client = AsyncClient(
            SimulatedDialer(surroundings.network, name, [BROKER]),
            entropy=scenario.chance(name).randbytes,
            clock=surroundings.clock.wall,
        )

    async def run(self) -> None:
        """Do what is planned for it."""
        for event in self._scenario.of(self._name):
            await until(event)
            try:
                await self._do(event.what, self._scenario.numbered(event.number))
            except TransportError as error:
                self._fates.is_doubtful = True
                self._world.note(f"{self._name} does not know whether it is done: {error}")
            except QueueNotFound:
                self._world.note(f"{self._name} is early: there is no such queue yet")

    async def resume_all(self) -> None:
        """Leave no queue paused."""
        for queue in QUEUES:
            await self._resume(queue)

    async def _resume(self, queue: str) -> None:
        while True:
            try:
                await self._control(queue, QueueAction.RESUME)
            except TransportError:
                continue
            except QueueNotFound:
                pass
            return

    async def _do(self, what: Fault | Step | Act, chance: random.Random) -> None:
        queue = chance.choice(QUEUES)
        match what:
            case Act.CANCEL:
                await self._cancel(chance)
            case Act.PURGE:
                await self._control(PURGED, QueueAction.PURGE)
            case Act.PAUSE:
                await self._control(queue, QueueAction.PAUSE)
            case Act.RESUME:
                await self._control(queue, QueueAction.RESUME)
            case Act.REDRIVE:
                await self._redrive(queue, chance)
            case Act.FORGET:
                await self._forget(queue, chance)
            case Fault() | Step():
                raise AssertionError("an operator acts")

    async def _cancel(self, chance: random.Random) -> None:
        # The latest: most of the others have ended.
        there = list(self._ledger.acknowledged.values())[-20:]
        errands = chance.sample(there, min(len(there), chance.randint(1, _CANCELLED_MAX)))
        if not errands:
            return
        known = [errand for errand in errands if errand.is_kept and self._fates.is_left_alone(errand)]
        self._fates.cancels(errands)
        refused = await self.client.cancel([errand.id for errand in errands])
        for errand in errands:
            refusal = refused.get(errand.id)
            self._fates.cancel_answered(errand, is_refused=refusal is not None)
            self._world.note(f"{self._name} cancels {errand}: {refusal.code.value if refusal else 'done'}")
            if isinstance(refusal, TaskNotFound) and errand in known:
                raise WentWrong(f"{errand}: it was enqueued, and the broker does not know it to cancel it")

    async def _control(self, queue: str, action: QueueAction) -> None:
        match action:
            case QueueAction.PAUSE:
                await self.client.control_queue(queue, action)
                self._fates.pauses(queue)
            case QueueAction.RESUME:
                self._fates.resumes(queue)
                await self.client.control_queue(queue, action)
                self._fates.resume_answered(queue)
            case QueueAction.PURGE:
                purge, there = self._fates.purges()
                await self.client.control_queue(queue, action)
                self._fates.purge_answered(purge, there)
        self._world.note(f"{self._name} has done: {action.value} {queue}")

    async def _dead(self, queue: str) -> list[TaskView]:
        return [view async for view in self.client.list_tasks(TaskState.DEAD, queue)]

    async def _redrive(self, queue: str, chance: random.Random) -> None:
        dead = self._of(await self._dead(queue))
        if not dead:
            return
        if chance.random() < 0.5:
            everybody = [errand for errand in self._errands.by_number if errand.queue == queue]
            self._fates.redrives(everybody)
            await self.client.control_dead(DeadAction.REDRIVE, queue)
        else:
            self._fates.redrives(dead)
            await self._of_those_named(DeadAction.REDRIVE, dead)
        self._fates.redrive_answered(dead)
        self._world.note(f"{self._name} redrives {', '.join(map(str, dead))}")

    async def _forget(self, queue: str, chance: random.Random) -> None:
        there = self._of(await self._dead(queue))
        dead = [errand for errand in there if errand.number not in self._ledger.sent_again]
        dead = chance.sample(dead, min(len(dead), 2))
        if not dead:
            return
        self._fates.forgets(dead)
        await self._of_those_named(DeadAction.PURGE, dead)
        self._fates.forget_answered(dead)
        self._world.note(f"{self._name} forgets {', '.join(map(str, dead))}")

    async def _of_those_named(self, action: DeadAction, errands: Sequence[Errand]) -> None:
        try:
            await self.client.control_dead(action, task_ids=[errand.id for errand in errands])
        except BrokerError as refusal:
            if self._fates.is_doubtful:
                # What it asked for before may have come between.
                raise TransportError(str(refusal)) from refusal
            raise

    def _of(self, views: list[TaskView]) -> list[Errand]:
        return [self._errands.by_id[view.id] for view in views]


async def until(event: Event) -> None:
    """Wait for the instant of *event*; not at all if it is over."""
    await asyncio.sleep(max(0.0, event.at_s - asyncio.get_running_loop().time()))
