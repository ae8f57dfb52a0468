"""Flows: the lines in which ready tasks wait, one for each queue, priority and task name.

A flow keeps the first few tasks of its line in memory (its heads) and knows where in the
store the rest begins; a million tasks behind the heads cost disk only.  One that no worker
serves keeps no heads: it would keep them from those that are served.  Where the memory of
all heads is used up, the flow that has not read for longest gives up all but its first.

Invariant, for each flow: every ready row with a seq below ``cursor`` is in ``heads``, in
``returned``, aside as a suspect, or under a lease; rows from ``cursor`` on are in the
store only, and exist only if ``unread``.  The persisted floor is never above a row that
no lease names.  ``held`` counts the tasks of the flow that are under a lease.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import msgspec

from tq.core.task import TaskRecord, TaskSpec
from tq.engine.changes import Changes
from tq.engine.rows import FLOW, READY, FlowId, decode_records, id_in, key_end, seq_of, u64

if TYPE_CHECKING:
    from tq.engine.leases import Lease
    from tq.engine.queues import Queue

HEADS_MAX = 1_024
REFILL_ROWS = 512
REFILL_BYTES = 256 * 1024
# What a head takes besides its record's bytes: itself (120), its id (49), the head of its record (33), its seq and its
# time (32 each) and its slot in the line (8), as sys.getsizeof says, each rounded up to 16 as they are allocated.
HEAD_BYTES = 312
# The same of a spec that it does not share: itself (80), its policy (48), three texts (49 each and their letters) and
# six numbers (32 at most each).
SPEC_BYTES = 512
# A floor is written once it has risen so far and so many of the flow's rows were taken: a restart walks over what is
# left of these at most.  Seqs alone do not say it: most of them belong to others where flows are served in turns.
FLOOR_STEP = 4_096
FLOOR_ROWS = 512
# What was cancelled is not counted as taken, so that far enough is enough.
_FLOOR_SEQS = 64 * FLOOR_STEP
# A worker that dies is bad luck for what waits there; two with the same task waiting are a reason to look at it.
ABANDONED_MAX = 1


class QueuedTask(msgspec.Struct, gc=False):
    """A ready or running task in memory: where its row is, and what dispatch and settle need.

    ``lease`` and ``index`` are set while it is delivered; ``started_at`` once the worker
    said that it runs.  ``abandoned`` counts the workers that died with it and never said
    so: a task that kills at its first step leaves no time for it.  ``own_spec``: it was
    the first of its spec in its line, which is counted with it.
    """

    seq: int
    id: bytes
    flow: "Flow"
    spec: TaskSpec
    record: bytes
    enqueued_at: int
    attempts: int = 0
    losses: int = 0
    generation: int = 1
    lease: "Lease | None" = None
    index: int = 0
    started_at: int = 0
    abandoned: int = 0
    own_spec: bool = False

    @classmethod
    def of(cls, record: TaskRecord, encoded: bytes, flow: "Flow", seq: int) -> "QueuedTask":
        """Return the task of a row of *flow*: *encoded*, and decoded *record*."""
        return cls(
            seq, record.id, flow, record.spec, encoded,
            record.enqueued_at, record.attempts, record.losses, record.generation,
        )  # fmt: skip

    @property
    def suspect(self) -> bool:
        """Whether it may be what kills workers, and is to be handed out alone."""
        return self.losses > 0 or self.abandoned > ABANDONED_MAX

    @property
    def charge(self) -> int:
        """How many bytes of memory it is counted with as a head."""
        return len(self.record) + (HEAD_BYTES + SPEC_BYTES if self.own_spec else HEAD_BYTES)

    @property
    def key(self) -> bytes:
        """The key of its ready row."""
        return self.flow.prefix + self.seq.to_bytes(8, "big")


def turn_of(task: QueuedTask) -> tuple[int, int]:
    """Return what tasks apart from their lines are ordered by: the more urgent first, then the older."""
    return task.flow.rank, task.seq


class HeadsBudget:
    """How many bytes of heads all flows together keep in memory, against what they may.

    ``holders`` are the flows that may have heads to give up, first the one that has not
    read for longest: it is idle, or slow.
    """

    __slots__ = ("bytes_max", "holders", "used")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0
        self.holders: OrderedDict[Flow, None] = OrderedDict()

    def room_for(self, flow: "Flow") -> int:
        """Return how many bytes *flow* may read, once others have given up what they can do without.

        That is 0 or less where all hold no more than their first heads.
        """
        wanted = min(REFILL_BYTES, self.bytes_max // 4)
        holders = self.holders
        holders.pop(flow, None)
        for _ in range(len(holders)):
            if self.bytes_max - self.used >= wanted:
                break
            holder, _ = holders.popitem(last=False)
            if holder.give_up():
                holders[holder] = None
        holders[flow] = None
        return min(REFILL_BYTES, self.bytes_max - self.used)


class Flow:
    """One line of ready tasks.  Owned by its queue; dispatch takes from its front."""

    __slots__ = (
        "_budget", "_dropped", "_end", "_floor_written", "_heads", "_is_holder", "_reach", "_returned", "_spec",
        "_taken", "aside", "cursor", "held", "id", "name", "prefix", "queue", "rank", "served", "unread",
    )  # fmt: skip

    def __init__(self, flow_id: FlowId, queue: "Queue", budget: HeadsBudget) -> None:
        self.id = flow_id
        self.queue = queue
        self.rank = flow_id.rank
        self.name = queue.names[flow_id.name]
        self.prefix = READY + flow_id.pack()
        self.cursor = 0
        self.unread = False
        self.served = queue.serves(self.name)
        self.aside: set[int] = set()
        self.held = 0
        self._end = key_end(self.prefix)
        self._budget = budget
        self._heads: deque[QueuedTask] = deque()
        self._is_holder = False
        # How many rows the next reading is for: fewer after heads were given up, or many flows that are all
        # served would read for each other to forget.
        self._reach = REFILL_ROWS
        self._returned: list[tuple[int, QueuedTask]] = []
        self._dropped: set[int] = set()
        self._floor_written: int | None = None
        self._taken = 0
        # That of the last head: those of one flow most often have equal ones, and share it.
        self._spec: TaskSpec | None = None

    @property
    def live(self) -> bool:
        """Whether it belongs to the present generation of its queue (a purge ends one)."""
        return self.id.generation == self.queue.row.generation

    @property
    def floor(self) -> int:
        """A seq below which nothing waits."""
        return self._floor_written or 0

    # ------------------------------------------------------------------ the end of the line

    def accepts_heads(self) -> bool:
        """Whether the next appended task is kept in memory."""
        return (
            self.served
            and not self.unread
            and len(self._heads) < HEADS_MAX
            and self._budget.used < self._budget.bytes_max
        )

    def append(self, task: QueuedTask) -> None:
        """Put a fresh task at the end, in memory; only if `accepts_heads`."""
        if task.spec is not self._spec:
            if self._spec is not None and task.spec == self._spec:
                task.spec = self._spec
            else:
                self._spec = task.spec
                task.own_spec = True
        self._heads.append(task)
        self._budget.used += task.charge
        self.cursor = task.seq + 1
        if not self._is_holder:
            self._is_holder = True
            self._budget.holders[self] = None

    def append_stored(self, seq: int) -> None:
        """Note a fresh task at the end that is in the store only."""
        if not self.unread:
            self.unread = True
            self.cursor = seq

    def append_aside(self, task: QueuedTask) -> None:
        """Put a fresh suspect at the end, apart from the line."""
        if not self.unread:
            self.cursor = task.seq + 1
            self._set_aside(task)
        # Else it is found when the line has been read so far.

    # ------------------------------------------------------------------ the front

    def head(self, changes: Changes) -> QueuedTask | None:
        """Return the task that is next, reading more of the line if need be; None when the line is empty."""
        while True:
            # What was read may all be under leases, or suspects; what came back is older than what is unread.
            while self.unread and not self._heads and not self._returned:
                self._refill(changes)
            first = self._heads[0] if self._heads else None
            if self._returned and (first is None or self._returned[0][0] < first.seq):
                first = self._returned[0][1]
            if first is None or first.seq not in self._dropped:
                return first
            self._dropped.discard(first.seq)
            self.take(first)

    @property
    def front(self) -> int:
        """A seq that is that of the next task, or before it: what is known without reading."""
        first = self._heads[0].seq if self._heads else self.cursor
        return min(first, self._returned[0][0]) if self._returned else first

    def count(self, enough: int, changes: Changes) -> int:
        """Return how many tasks it has to hand out, as far as is known without reading more than *enough* of them."""
        while self.unread and self._in_memory < min(enough, HEADS_MAX) and self._budget.used < self._budget.bytes_max:
            self._refill(changes)
        return self._in_memory

    def waits(self, changes: Changes) -> bool:
        """Tell whether there is a task in it, keeping nothing of what must be read for that."""
        start = self.cursor
        while not (self._in_memory or self.aside) and self.unread:
            rows = changes.scan(self.prefix + u64(start), self._end, 1, REFILL_BYTES)
            if not rows:
                return False
            ((key, value),) = rows
            if id_in(value) not in self.queue.running:
                return True
            start = seq_of(key) + 1
        return bool(self._in_memory or self.aside)

    @property
    def _in_memory(self) -> int:
        return len(self._heads) + len(self._returned) - len(self._dropped)

    def take(self, task: QueuedTask) -> None:
        """Remove *task*, which `head` returned."""
        if self._heads and self._heads[0] is task:
            self._heads.popleft()
            self._budget.used -= task.charge
        else:
            heappop(self._returned)

    def give_back(self, task: QueuedTask, changes: Changes) -> None:
        """Put a task back to its old place in the line, ahead of all that came later."""
        task.lease = None
        task.started_at = 0
        if self.unread and task.seq >= self.cursor:
            pass  # It is found when the line has been read so far: after a restart it may not have been.
        elif task.suspect:
            self._set_aside(task)
        else:
            heappush(self._returned, (task.seq, task))
        if self._floor_written is None or task.seq < self._floor_written:
            self._write_floor(task.seq, changes)

    def drop(self, seq: int) -> None:
        """Forget the task of *seq*, whose row has been deleted."""
        if seq in self.aside:
            self.aside.discard(seq)
            self.queue.drop_suspect(seq)
        elif seq < self.cursor:
            self._dropped.add(seq)

    def _set_aside(self, task: QueuedTask) -> None:
        self.aside.add(task.seq)
        self.queue.set_aside(task)

    def _refill(self, changes: Changes) -> None:
        budget = self._budget
        room = budget.room_for(self)
        self._is_holder = True
        # One row in any case, and few beyond the one that fills the room.
        count = min(self._reach, max(1, room // HEAD_BYTES))
        rows = changes.scan(self.prefix + u64(self.cursor), self._end, count, max(1, room))
        self._reach = min(REFILL_ROWS, 2 * self._reach)
        if not rows:
            self.unread = False
            return
        running = self.queue.running
        waiting = [row for row in rows if id_in(row[1]) not in running]
        records = decode_records([value for _, value in waiting])
        for (key, value), record in zip(waiting, records, strict=True):
            task = QueuedTask.of(record, value, self, seq_of(key))
            if task.suspect:
                self._set_aside(task)
            elif self._heads and budget.used >= budget.bytes_max:
                self.cursor = task.seq
                return
            else:
                self.append(task)
        self.cursor = seq_of(rows[-1][0]) + 1

    # ------------------------------------------------------------------ the floor

    def open(self, seq: int, changes: Changes) -> None:
        """Make the flow known to a restart before its first row, of *seq*, is written."""
        self.cursor = seq
        self._write_floor(seq, changes)

    def reopen(self, floor: int) -> None:
        """Take up a flow found at a restart: all that is in it is in the store."""
        self.cursor = floor
        self._floor_written = floor
        self.unread = True

    def raise_floor(self, taken: int, changes: Changes) -> None:
        """Write the floor if it is worth a row, now that *taken* more were taken."""
        self._taken += taken
        floor = self._heads[0].seq if self._heads else self.cursor
        if self._floor_written is None or (self._taken < FLOOR_ROWS and floor - self._floor_written < _FLOOR_SEQS):
            return
        if self._returned:
            floor = min(floor, self._returned[0][0])
        if self.aside:
            floor = min(floor, *self.aside)
        if floor - self._floor_written >= FLOOR_STEP:
            self._write_floor(floor, changes)
            self._taken = 0

    def close(self, changes: Changes) -> None:
        """Delete the flow's row: nothing of it is left but, perhaps, tasks under a lease."""
        changes.writes[FLOW + self.prefix[1:]] = None
        self._floor_written = None
        self._budget.holders.pop(self, None)

    def park(self) -> None:
        """Give the memory of the heads back: nobody serves it any more."""
        self.served = False
        self._shorten(0)
        self._spec = None

    def give_up(self) -> bool:
        """Give the memory of all heads but the first back, for a flow that reads; tells whether some must stay yet."""
        self._reach = max(1, min(self._reach, len(self._heads)) // 4)
        self._shorten(1)
        self._is_holder = len(self._heads) > 1
        return self._is_holder

    def abandon(self) -> None:
        """Give the memory of the heads back: the queue was purged."""
        self._budget.used -= sum(task.charge for task in self._heads)
        self._heads.clear()
        self._returned.clear()
        self._dropped.clear()
        self.aside.clear()
        self.unread = False
        self._is_holder = False
        self._budget.holders.pop(self, None)

    def is_empty(self) -> bool:
        """Whether nothing is known to wait in it (rows not yet read count as waiting)."""
        return not (self._heads or self._returned or self.unread or self.aside)

    def _shorten(self, count: int) -> None:
        """Leave what is behind the first *count* heads to the store.

        What came back stays, with what is known of it, and so do the heads before that.
        """
        kept = max(max((seq for seq, _ in self._returned), default=0), max(self.aside, default=0))
        heads = self._heads
        while len(heads) > count and heads[-1].seq > kept:
            task = heads.pop()
            self._budget.used -= task.charge
            self.cursor = task.seq
            self.unread = True
        self._dropped = {seq for seq in self._dropped if seq < self.cursor}

    def _write_floor(self, floor: int, changes: Changes) -> None:
        changes.writes[FLOW + self.prefix[1:]] = u64(floor)
        self._floor_written = floor
