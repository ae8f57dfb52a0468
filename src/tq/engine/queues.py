"""Queues: what exists under which number, its counters, its flows.

Invariant: the counters in a queue's row change in the same batch as the rows they
count.  A queue's flows in memory are exactly those with a row (or with tasks under a
lease only).
"""

from bisect import insort
from collections.abc import Iterable, KeysView, Mapping
from typing import Protocol

from tq.core.errors import InvalidArgument, QueueNotFound, TooManyQueues
from tq.core.priority import PRIORITY_MAX
from tq.core.queue import check_queue_name
from tq.core.task import TaskSpec
from tq.engine.changes import Changes, Reader, all_rows
from tq.engine.flows import Flow, HeadsBudget, QueuedTask, turn_of
from tq.engine.rows import (
    NAMES,
    QUEUE,
    FlowId,
    QueueRow,
    decode_names,
    decode_queue,
    encode_names,
    encode_row,
    flow_of,
    names_key,
    queue_key,
    queue_of_names,
)

NAMES_MAX = 10_000


class Serving(Protocol):
    """Who wants to know that a flow has something to hand out."""

    def serves(self, name: str) -> bool:
        """Tell whether it hands out tasks of this name."""
        ...

    def wake(self, flow: Flow) -> None:
        """*flow* has tasks to hand out."""
        ...

    def wake_front(self, flow: Flow) -> None:
        """*flow* has a new head, older than those before."""
        ...


class Queue:
    """One queue in memory.  ``running`` is the map of all tasks under a lease, of any queue."""

    __slots__ = (
        "_by_name", "_with_suspects", "flows", "lanes", "names",
        "number", "row", "running", "running_count", "suspects",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        row: QueueRow,
        names: list[str],
        running: Mapping[bytes, QueuedTask],
        with_suspects: set["Queue"],
    ) -> None:
        self.number = number
        self.row = row
        self.names = names
        self._by_name = {name: index for index, name in enumerate(names)}
        self.flows: dict[FlowId, Flow] = {}
        # In the order of their turns, so that who looks for the first need not look at all.
        self.suspects: list[QueuedTask] = []
        self.lanes: list[Serving] = []
        self.running = running
        self.running_count = 0
        self._with_suspects = with_suspects

    @property
    def names_known(self) -> KeysView[str]:
        """The task names it has seen."""
        return self._by_name.keys()

    @property
    def ready(self) -> int:
        """How many tasks wait to be handed out."""
        return self.row.pending - self.running_count

    def serves(self, name: str) -> bool:
        """Tell whether some worker has a handler for tasks of this name."""
        return any(lane.serves(name) for lane in self.lanes)

    def set_aside(self, task: QueuedTask) -> None:
        """Keep a suspect apart from its flow, to be handed out alone."""
        insort(self.suspects, task, key=turn_of)
        self._with_suspects.add(self)

    def drop_suspect(self, seq: int) -> None:
        """Forget a suspect, whose row has been deleted."""
        self.suspects = [task for task in self.suspects if task.seq != seq]

    def name_number(self, name: str, changes: Changes) -> int:
        """Return the number of a task name in this queue's flows, numbering a new one.

        Raises:
            InvalidArgument: The queue has seen too many different names.
        """
        number = self._by_name.get(name)
        if number is None:
            if len(self.names) >= NAMES_MAX:
                raise InvalidArgument(
                    f"queue {self.row.name!r}: {NAMES_MAX} different task names at most; {name[:80]!r} is one more"
                )
            number = self._by_name[name] = len(self.names)
            self.names.append(name)
            changes.writes[names_key(self.number, number)] = encode_names([name])
        return number

    def wake(self, flow: Flow) -> None:
        """Tell all lanes that *flow* has tasks to hand out (unless the queue is paused)."""
        if not self.row.paused:
            for lane in self.lanes:
                lane.wake(flow)

    def wake_front(self, flow: Flow) -> None:
        """Tell all lanes that *flow* has a new head, older than those before."""
        if not self.row.paused:
            for lane in self.lanes:
                lane.wake_front(flow)


class Queues:
    """All queues, by name and by number."""

    def __init__(self, budget: HeadsBudget, running: Mapping[bytes, QueuedTask], queues_max: int) -> None:
        self._budget = budget
        self._running = running
        self._queues_max = queues_max
        self._by_name: dict[str, Queue] = {}
        self._by_number: dict[int, Queue] = {}
        # A dict for its order, so that equal runs write their rows in equal order.
        self._touched: dict[Queue, None] = {}
        self.with_suspects: set[Queue] = set()

    def __len__(self) -> int:
        return len(self._by_name)

    def all(self) -> Iterable[Queue]:
        """Return all queues, in the order of their numbers."""
        return self._by_number.values()

    def numbered(self, number: int) -> Queue:
        """Return the queue of *number*, which a row names."""
        return self._by_number[number]

    def named(self, name: str) -> Queue:
        """Return the queue of *name*.

        Raises:
            QueueNotFound: There is none.
        """
        queue = self._by_name.get(name)
        if queue is None:
            raise QueueNotFound(f"no queue {name[:140]!r}: it exists from its first task or worker on")
        return queue

    def provide(self, name: str) -> Queue:
        """Return the queue of *name*, made now if need be.

        Raises:
            InvalidArgument: *name* cannot name a queue.
            TooManyQueues: There are as many as may be.
        """
        queue = self._by_name.get(name)
        if queue is not None:
            return queue
        _check_name(name)
        if len(self._by_name) >= self._queues_max:
            raise TooManyQueues(f"{self._queues_max} queues exist, as many as may; {name!r} would be one more")
        queue = Queue(len(self._by_number) + 1, QueueRow(name), [], self._running, self.with_suspects)
        self._add(queue)
        self.touch(queue)
        return queue

    def check_room(self, specs: list[TaskSpec]) -> None:
        """Make sure that `provide` and `name_number` will not refuse any of *specs* for lack of room.

        Raises:
            TooManyQueues, InvalidArgument: They would.
        """
        self._check_room_for_queues({spec.queue for spec in specs})
        fresh: dict[str, set[str]] = {}
        for spec in specs:
            queue = self._by_name.get(spec.queue)
            if queue is None or spec.name not in queue.names_known:
                fresh.setdefault(spec.queue, set()).add(spec.name)
        for queue_name, names in fresh.items():
            queue = self._by_name.get(queue_name)
            if len(names) + (len(queue.names) if queue else 0) > NAMES_MAX:
                raise InvalidArgument(f"queue {queue_name!r}: {NAMES_MAX} different task names at most")

    def check_names(self, names: list[str]) -> None:
        """Make sure that `provide` will not refuse any of *names*.

        Raises:
            TooManyQueues, InvalidArgument: It would.
        """
        for name in names:
            if name not in self._by_name:
                _check_name(name)
        self._check_room_for_queues(set(names))

    def touch(self, queue: Queue) -> None:
        """Note that *queue*'s row changes in this batch."""
        self._touched[queue] = None

    def flow(self, queue: Queue, flow_id: FlowId, seq: int, changes: Changes) -> Flow:
        """Return the flow of *flow_id*, opened now, with *seq* as its first, if need be."""
        flow = queue.flows.get(flow_id)
        if flow is None:
            flow = queue.flows[flow_id] = Flow(flow_id, queue, self._budget)
            flow.open(seq, changes)
        return flow

    def flow_for(self, queue: Queue, spec: TaskSpec, seq: int, changes: Changes) -> Flow:
        """Return the flow in which tasks of *spec* wait in *queue*, opened now, with *seq* as its first, if need be."""
        name = queue.name_number(spec.name, changes)
        flow_id = FlowId(queue.number, queue.row.generation, PRIORITY_MAX - spec.priority, name)
        return self.flow(queue, flow_id, seq, changes)

    def take_up(self, flow_key: bytes, floor: int) -> None:
        """Take up the flow of a row found at a restart, unless its queue was purged since."""
        flow_id = flow_of(flow_key)
        queue = self._by_number[flow_id.queue]
        if flow_id.generation == queue.row.generation:
            flow = queue.flows[flow_id] = Flow(flow_id, queue, self._budget)
            flow.reopen(floor)

    def flow_under_lease(self, flow_id: FlowId) -> Flow:
        """Return the flow that a task restored under a lease came from, live or not."""
        queue = self._by_number[flow_id.queue]
        return queue.flows.get(flow_id) or Flow(flow_id, queue, self._budget)

    def write_touched(self, changes: Changes) -> None:
        """Write the rows of all queues touched in this batch."""
        for queue in self._touched:
            changes.writes[queue_key(QUEUE, queue.number)] = encode_row(queue.row)
        self._touched.clear()

    def restore(self, reader: Reader) -> None:
        """Read all queues."""
        names: dict[int, list[str]] = {}
        for key, value in all_rows(reader, NAMES):
            names.setdefault(queue_of_names(key), []).extend(decode_names(value))
        for key, value in all_rows(reader, QUEUE):
            number = int.from_bytes(key[1:], "big")
            known = names.get(number, [])
            self._add(Queue(number, decode_queue(value), known, self._running, self.with_suspects))

    def _check_room_for_queues(self, names: set[str]) -> None:
        # No difference of sets: that would look at every queue there is.
        unknown = [name for name in names if name not in self._by_name]
        if unknown and len(self._by_name) + len(unknown) > self._queues_max:
            raise TooManyQueues(
                f"{len(self._by_name)} queues exist and {self._queues_max} may; {min(unknown)!r} would be one more"
            )

    def _add(self, queue: Queue) -> None:
        self._by_name[queue.row.name] = queue
        self._by_number[queue.number] = queue


def _check_name(name: str) -> None:
    try:
        check_queue_name(name)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None
