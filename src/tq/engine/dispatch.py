"""Dispatch: which ready task goes to which worker next.

Workers that serve the same queues with the same handlers share a *lane*: a heap of the
flows that have something for them, ordered by their heads: more urgent first, then by
weight where the worker asked for weights, then older first.  Policy lives in this order
and nowhere in the store, so it can change over any backlog.

Invariant: a key in a lane's heap is never above the flow's present key: appending to a
flow does not change its head, taking from it only raises its key, and what comes back to
its front enters the heap anew.  So the true first is found by correcting the top.
"""

from heapq import heappop, heappush, heapreplace, merge
from itertools import islice
from typing import NamedTuple

from tq.core.lifecycle import Step, TaskState
from tq.engine.changes import Changes, Delivery
from tq.engine.flows import Flow, QueuedTask, turn_of
from tq.engine.leases import Leases
from tq.engine.places import moves
from tq.engine.queues import Queue, Queues
from tq.engine.rows import LEASE
from tq.engine.workers import SENT_BYTES_MAX, WorkerSession

DELIVERY_TASKS_MAX = 500
DELIVERY_BYTES_MAX = 256 * 1024
BATCH_TASKS_MAX = 4_000
# To share them out evenly, the ready tasks of so many flows are counted: of what is behind, the next turns come.
_COUNTED_FLOWS_MAX = 256

_Key = tuple[int, float, int]
_Entry = tuple[int, float, int, int, Flow]


class LaneId(NamedTuple):
    """What workers of one lane have in common."""

    queues: tuple[tuple[str, int], ...]
    weighted: bool
    names: frozenset[str]


class Lane:
    """The flows that a set of like workers serves, in the order in which they are to be served."""

    def __init__(self, lane_id: LaneId, queues: dict[Queue, int]) -> None:
        self.id = lane_id
        self.weights = queues
        self.workers: list[WorkerSession] = []
        self._heap: list[_Entry] = []
        self._keys: dict[Flow, _Key] = {}
        self._passes: dict[Queue, float] = dict.fromkeys(queues, 0.0)
        self._pass_now = 0.0
        self._tie = 0

    def serves(self, name: str) -> bool:
        """Tell whether its workers have a handler for tasks of this name."""
        return name in self.id.names

    def wake(self, flow: Flow) -> None:
        """*flow* has tasks to hand out."""
        if flow not in self._keys and flow.name in self.id.names:
            if self.id.weighted:
                # A queue that comes back from idleness starts where the others are: it has saved up nothing.
                self._passes[flow.queue] = max(self._passes[flow.queue], self._pass_now)
            self._push(flow, (flow.rank, self._passes[flow.queue], flow.front))

    def wake_front(self, flow: Flow) -> None:
        """*flow* has a new head, older than those before."""
        if flow.name in self.id.names:
            key = (flow.rank, self._passes[flow.queue], flow.front)
            known = self._keys.get(flow)
            if known is None or known > key:
                self._push(flow, key)

    def take(self, count: int, bytes_max: int, changes: Changes) -> list[QueuedTask]:
        """Take up to *count* tasks off the front, until their records reach *bytes_max*."""
        taken: list[QueuedTask] = []
        size = 0
        while len(taken) < count and size < bytes_max:
            task = self._top(changes)
            if task is None:
                break
            flow = task.flow
            limit = self._second()
            step = 1 / self.weights[flow.queue] if self.id.weighted else 0.0
            before = len(taken)
            while True:
                flow.take(task)
                taken.append(task)
                size += len(task.record)
                if step:
                    self._pass_now = self._passes[flow.queue]
                    self._passes[flow.queue] += step
                task = flow.head(changes)
                if task is None:
                    break
                key = (flow.rank, self._passes[flow.queue], task.seq)
                if len(taken) >= count or size >= bytes_max or (limit is not None and key > limit):
                    self._replace_top(flow, key)
                    break
            flow.raise_floor(len(taken) - before, changes)
        return taken

    def first(self, changes: Changes) -> tuple[int, int] | None:
        """Return rank and seq of the task that is next, None if there is none."""
        head = self._top(changes)
        return (head.flow.rank, head.seq) if head else None

    def count(self, enough: int, changes: Changes) -> int:
        """Return how many tasks it could hand out at least, counting no further than *enough*, nor too many flows."""
        ready = 0
        for flow in islice(self._keys, _COUNTED_FLOWS_MAX):
            if ready >= enough:
                break
            if flow.live and not flow.queue.row.paused:
                ready += flow.count(enough - ready, changes)
        return ready

    @property
    def idle(self) -> bool:
        """Whether no flow is known to have anything."""
        return not self._heap

    def _push(self, flow: Flow, key: _Key) -> None:
        self._tie += 1
        self._keys[flow] = key
        heappush(self._heap, (*key, self._tie, flow))

    def _replace_top(self, flow: Flow, key: _Key) -> None:
        """Give *flow*, which is at the top of the heap, its place by *key*."""
        self._tie += 1
        self._keys[flow] = key
        heapreplace(self._heap, (*key, self._tie, flow))

    def _top(self, changes: Changes) -> QueuedTask | None:
        """Return the head of the flow that is first, which is at the top of the heap then."""
        heap = self._heap
        while heap:
            rank, at, seq, _, flow = heap[0]
            if self._keys.get(flow) != (rank, at, seq):
                heappop(heap)  # an entry that a newer one of the same flow has replaced
                continue
            head = flow.head(changes) if flow.live and not flow.queue.row.paused else None
            if head is None:
                heappop(heap)
                del self._keys[flow]
                continue
            key = (rank, self._passes[flow.queue], head.seq)
            if key == (rank, at, seq):
                return head
            self._replace_top(flow, key)
        return None

    def _second(self) -> _Key | None:
        """Return the least key of the other entries; their true keys are not below it."""
        others = self._heap[1:3]
        return min(others)[:3] if others else None


class Lanes:
    """All lanes: hands ready tasks to workers that have room."""

    def __init__(self, queues: Queues, leases: Leases) -> None:
        self._queues = queues
        self._leases = leases
        self._by_id: dict[LaneId, Lane] = {}
        self._by_session: dict[bytes, Lane] = {}
        self._reserved: list[WorkerSession] = []
        # Who was handed something in this batch.
        self._given: set[WorkerSession] = set()
        self._isolated = False

    def subscribe(self, worker: WorkerSession, queues: dict[Queue, int], *, weighted: bool) -> None:
        """Let *worker* serve *queues*, with their weights."""
        self.unsubscribe(worker)
        lane_id = LaneId(tuple((queue.row.name, weight) for queue, weight in queues.items()), weighted, worker.names)
        lane = self._by_id.get(lane_id)
        if lane is None:
            lane = self._by_id[lane_id] = Lane(lane_id, queues)
            for queue in queues:
                queue.lanes.append(lane)
                for flow in queue.flows.values():
                    flow.served = flow.served or lane.serves(flow.name)
                self.wake_all(queue)
        lane.workers.append(worker)
        self._by_session[worker.session] = lane
        worker.queues = [queue.row.name for queue in queues]

    def unsubscribe(self, worker: WorkerSession) -> None:
        """Let *worker* serve nothing."""
        lane = self._by_session.pop(worker.session, None)
        if lane is None:
            return
        lane.workers.remove(worker)
        if not lane.workers:
            del self._by_id[lane.id]
            for queue in lane.weights:
                queue.lanes.remove(lane)
                for flow in queue.flows.values():
                    if flow.served and not queue.serves(flow.name):
                        flow.park()

    @staticmethod
    def wake_all(queue: Queue) -> None:
        """Let all lanes look at all flows of *queue*: a lane is new, or the queue was resumed.

        While it was paused, older tasks may have come back to the front of a flow.
        """
        for flow in queue.flows.values():
            queue.wake(flow)
            queue.wake_front(flow)

    def workers_of(self, queue: Queue) -> int:
        """Return how many connected workers serve *queue*."""
        lanes = [lane for lane in self._by_id.values() if queue in lane.weights]
        return sum(worker.connected for lane in lanes for worker in lane.workers)

    def names_served(self, queue: Queue) -> set[str]:
        """Return the task names that some worker of *queue* has a handler for."""
        names: set[str] = set()
        for lane in self._by_id.values():
            if queue in lane.weights:
                names |= lane.id.names
        return names

    def dispatch(self, changes: Changes) -> bool:
        """Hand out what can be, up to a batch's worth; tells whether there may be more."""
        for worker in self._given:
            worker.sent_bytes = 0
        self._given.clear()
        budget = BATCH_TASKS_MAX
        while True:
            for worker in self._reserved:
                worker.reserved = False
            self._reserved.clear()
            self._isolated = False
            for lane in self._by_id.values():
                budget -= self._serve(lane, budget, changes)
                if budget <= 0:
                    return True
            # A worker reserved in one lane may have waited for a suspect that another lane has taken since.
            if not (self._reserved and self._isolated):
                return any(worker.sent_bytes >= SENT_BYTES_MAX for worker in self._given)

    def _serve(self, lane: Lane, budget: int, changes: Changes) -> int:
        """Hand out of *lane* until it is empty, its workers are full or *budget* is used up; returns how many."""
        given = 0
        while given < budget:
            self._isolate(lane, changes)
            if lane.idle:
                break
            workers = sorted(
                (worker for worker in lane.workers if worker.open and not worker.reserved),
                key=lambda worker: worker.held_tasks,
            )
            if not workers:
                break
            share = self._share(lane, workers, changes)
            before = given
            for worker in workers:
                given += self._give(worker, lane, min(share, budget - given), changes)
                if given >= budget:
                    break
            if given == before:
                # All there was to read may have been suspects.
                self._isolate(lane, changes)
                break
        return given

    @staticmethod
    def _share(lane: Lane, workers: list[WorkerSession], changes: Changes) -> int:
        """Return how many tasks each of *workers* gets at a time, so that few are spread over all."""
        if len(workers) == 1:
            return DELIVERY_TASKS_MAX
        room = sum(min(DELIVERY_TASKS_MAX, worker.window_tasks - worker.held_tasks) for worker in workers)
        ready = lane.count(room, changes)
        return max(1, min(DELIVERY_TASKS_MAX, -(-ready // len(workers))))

    def _give(self, worker: WorkerSession, lane: Lane, share: int, changes: Changes) -> int:
        count = min(share, DELIVERY_TASKS_MAX, worker.window_tasks - worker.held_tasks)
        bytes_max = min(DELIVERY_BYTES_MAX, worker.window_bytes - worker.held_bytes)
        tasks = lane.take(count, bytes_max, changes)
        if tasks:
            self._deliver(worker, tasks, alone=False, changes=changes)
        return len(tasks)

    @moves(TaskState.READY, Step.DELIVER, writes=(LEASE,))
    def _deliver(self, worker: WorkerSession, tasks: list[QueuedTask], *, alone: bool, changes: Changes) -> None:
        lease = self._leases.grant(worker.session, alone, tasks, changes)
        for task in tasks:
            worker.hold(task)
            worker.sent_bytes += len(task.record)
        self._given.add(worker)
        worker.isolating = alone
        changes.deliveries.append(Delivery(worker.session, lease.token, alone, [task.record for task in tasks]))

    def _isolate(self, lane: Lane, changes: Changes) -> None:
        """Give suspects, when it is their turn, to workers that hold nothing; if there is none, empty one for them."""
        if not self._queues.with_suspects:
            return
        first = lane.first(changes)
        queues = [queue for queue in self._queues.with_suspects if queue in lane.weights]
        given: list[QueuedTask] = []
        for task in merge(*(queue.suspects for queue in queues if not queue.row.paused), key=turn_of):
            if task.flow.name not in lane.id.names:
                continue
            # One that is less urgent than what waits in the line goes no sooner for being a suspect.
            if first is not None and (task.flow.rank, 0 if lane.id.weighted else task.seq) > first:
                break
            workers = [worker for worker in lane.workers if worker.takes]
            free = next((worker for worker in workers if worker.open and not worker.held_tasks), None)
            if free is None:
                self._reserve([worker for worker in workers if not worker.isolating])
                break
            given.append(task)
            self._deliver(free, [task], alone=True, changes=changes)
        for task in given:
            self._isolated = True
            task.flow.queue.suspects.remove(task)
            task.flow.aside.discard(task.seq)
        for queue in queues:
            if not queue.suspects:
                self._queues.with_suspects.discard(queue)

    def _reserve(self, workers: list[WorkerSession]) -> None:
        """Give no more to one of *workers*, until it holds nothing."""
        if not any(worker.reserved for worker in workers) and workers:
            worker = min(workers, key=lambda worker: worker.held_tasks)
            worker.reserved = True
            self._reserved.append(worker)
