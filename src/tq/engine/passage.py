"""Passage: what time brings, a slice a batch.

Tasks come due, leases end, results are forgotten, operations go on, empty flows are
closed.  Invariant: all slices of a tick together are one bounded change, and none of the
kinds of work waits for ever behind another: they take turns in being the first.
"""

from tq.core.lifecycle import Step, TaskState
from tq.core.times import SECOND
from tq.engine import commands
from tq.engine.changes import Changes
from tq.engine.custody import Custody
from tq.engine.enqueue import put_ready
from tq.engine.flows import Flow
from tq.engine.leases import Leases
from tq.engine.meta import Meta
from tq.engine.operations import SLICE_BYTES, SLICE_ROWS, Operations
from tq.engine.places import moves
from tq.engine.purge import purge_scheduled
from tq.engine.queues import Queues
from tq.engine.retention import Retention
from tq.engine.rows import DUE, READY, decode_record, split_scheduled
from tq.engine.timeline import Timeline
from tq.engine.waiters import Waiters
from tq.engine.workers import Workers

_SWEEP_MS = 60 * SECOND
# So many queues and flows are looked at in one go, which takes 0.3 ms; the next go comes after a breath.
_SWEPT_MAX = 1_000
_SWEEP_BREATH_MS = 10


class Passage:
    """The work of `Tick`.  ``next_sweep``: when empty flows are looked for again."""

    def __init__(
        self,
        meta: Meta,
        queues: Queues,
        leases: Leases,
        workers: Workers,
        timeline: Timeline,
        retention: Retention,
        operations: Operations,
        waiters: Waiters,
        custody: Custody,
    ) -> None:
        self._meta = meta
        self._queues = queues
        self._leases = leases
        self._workers = workers
        self._timeline = timeline
        self._retention = retention
        self._operations = operations
        self._waiters = waiters
        self._custody = custody
        self._first_part = 0
        # Where the sweep that is under way goes on: the number of the queue, and those of its flows that are left.
        self._swept_queue = 0
        self._unswept: list[Flow] = []
        self.next_sweep = 0

    def tick(self, command: commands.Tick, now: int, changes: Changes) -> None:
        """Do a slice of each kind of work, in turns the one or the other first.

        All slices together are one bounded change.  A single task may be larger than its
        slice: then the others wait for the next tick.
        """
        parts = (self._move_due, self._custody.take_back, self._retention.expire, self._operations.step)
        first = self._first_part = (self._first_part + 1) % len(parts)
        for part in (*parts[first:], *parts[:first]):
            if part(now, changes) > SLICE_BYTES:
                return
        if now >= self.next_sweep:
            done = self._sweep_flows(changes)
            self.next_sweep = now + (_SWEEP_MS if done else _SWEEP_BREATH_MS)

    @moves(TaskState.SCHEDULED, Step.DUE, deletes=(DUE,), writes=(READY,))
    def _move_due(self, now: int, changes: Changes) -> int:
        """Let a slice of what is due go to its queues; returns how many bytes of tasks that were."""
        size = 0
        for key, value in self._timeline.take_due(now, SLICE_ROWS, SLICE_BYTES, changes):
            number, generation, encoded = split_scheduled(value)
            queue = self._queues.numbered(number)
            record = decode_record(encoded)
            if generation != queue.row.generation:  # purged while it waited
                purge_scheduled(key, record.id, self._waiters, now, changes)
                continue
            size += len(encoded)
            queue.row.scheduled -= 1
            put_ready(self._meta, self._queues, queue, record, changes)
        return size

    def next_tick(self, now: int) -> int:
        """Return when `tick` has something to do next."""
        if len(self._operations):
            return now
        times = (
            self._timeline.next_due,
            self._leases.next_deadline(),
            self._workers.next_over(now),
            self._retention.next_at(),
        )
        return min([time for time in times if time is not None] + [self.next_sweep])

    def _sweep_flows(self, changes: Changes) -> bool:
        """Close what is empty of a slice of all flows; tells whether that was the last slice."""
        for _ in range(_SWEPT_MAX):
            if self._unswept:
                flow = self._unswept.pop()
                # A purge may have taken it away since.
                if flow.live and flow.is_empty() and not flow.held:
                    flow.close(changes)
                    del flow.queue.flows[flow.id]
            elif self._swept_queue < len(self._queues):
                self._swept_queue += 1
                self._unswept = list(self._queues.numbered(self._swept_queue).flows.values())
            else:
                self._swept_queue = 0
                return True
        return False
