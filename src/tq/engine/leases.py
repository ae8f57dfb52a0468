"""Leases: who may settle a delivery, and which of its tasks really run.

Invariant: a task has at most one live lease; ``running`` holds exactly the tasks under
one, and each session's part of it is known without a look at the others'.  A token is
issued once, ever (`tq.core.lease`).  A lease row names every task still
under the lease by its ready key, and is rewritten when one is handed back or starts.

Each delivery has a deadline, by which what has not started goes back, and each started
task one of its own.  They are kept in memory only: a restart gives fresh time.
"""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from tq.core.lease import Token, first_token
from tq.engine.changes import Changes
from tq.engine.flows import QueuedTask
from tq.engine.rows import LEASE, LeaseRow, encode_row, u64

_DEADLINES_SLACK = 1_000
# Of a row for each of its tasks: 30 bytes of key, up to 3 of its index.
_ROW_TASK_BYTES = 36
# Stands for a whole delivery where the index of a task does for one.
_WHOLE = -1


class Lease:
    """One delivery.  ``tasks`` by index; None once settled or handed back.  ``started`` of ``live`` ones really run."""

    __slots__ = ("alone", "live", "session", "started", "tasks", "token")

    def __init__(self, token: Token, session: bytes, alone: bool, tasks: list[QueuedTask | None]) -> None:  # noqa: FBT001 - positional for the row
        self.token = token
        self.session = session
        self.alone = alone
        self.tasks = tasks
        self.live = sum(task is not None for task in tasks)
        self.started = 0

    @property
    def row_bytes(self) -> int:
        """How many bytes its row takes at most."""
        return _ROW_TASK_BYTES * (len(self.tasks) + 1)


class Leases:
    """All live leases.  *grace_ms*: how long after its timeout a task may still be settled."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self.running: dict[bytes, QueuedTask] = {}
        self._by_token: dict[int, Lease] = {}
        # By session, then by token; a session without a lease is not in it.
        self._by_session: dict[bytes, dict[int, Lease]] = {}
        self._next_token = Token(0)
        self._deadlines: list[tuple[int, int, int]] = []
        self._fresh: list[Lease] = []

    def begin_epoch(self, epoch: int) -> None:
        """Issue tokens of *epoch* from now on."""
        self._next_token = first_token(epoch)

    def grant(self, session: bytes, alone: bool, tasks: list[QueuedTask], changes: Changes) -> Lease:  # noqa: FBT001 - as above
        """Put *tasks* under a new lease of *session*."""
        token = self._next_token
        self._next_token = Token(token + 1)
        lease = Lease(token, session, alone, list(tasks))
        self._add(lease)
        running = self.running
        for index, task in enumerate(tasks):
            task.lease = lease
            task.index = index
            running[task.id] = task
            flow = task.flow
            flow.held += 1
            flow.queue.running_count += 1
        self._fresh.append(lease)
        self.write(lease, changes)
        return lease

    def restore(self, lease: Lease) -> None:
        """Take up a lease found at a restart; its tasks point to it already."""
        self._add(lease)
        self._fresh.append(lease)
        for task in lease.tasks:
            if task is not None:
                self.running[task.id] = task
                task.flow.held += 1
                task.flow.queue.running_count += 1
                if task.started_at:
                    self._watch(task, lease)

    def find(self, session: bytes, token: int, index: int) -> QueuedTask | None:
        """Return the task that *session* holds as (token, index), or None if it does not."""
        lease = self._by_token.get(token)
        if lease is None or lease.session != session or not 0 <= index < len(lease.tasks):
            return None
        return lease.tasks[index]

    def handed_out_after(self, token: int, index: int) -> Iterator[tuple[int, int, QueuedTask]]:
        """Yield what is under a lease as (token, index, task), from behind that place, in the order of hand-out.

        To be consumed before anything changes.  It sorts nothing: tokens grow, so the leases are kept in their order.
        """
        tokens = list(self._by_token)
        for at in tokens[bisect_left(tokens, token) :]:
            for number, task in enumerate(self._by_token[at].tasks):
                if task is not None and (at > token or number > index):
                    yield at, number, task

    def held_by(self, session: bytes) -> Iterator[QueuedTask]:
        """Yield what *session* holds, in the order of hand-out; to be consumed before anything changes."""
        for lease in self._by_session.get(session, {}).values():
            for task in lease.tasks:
                if task is not None:
                    yield task

    def started_by(self, session: bytes) -> int:
        """Return how many of the tasks that *session* holds really run."""
        return sum(lease.started for lease in self._by_session.get(session, {}).values())

    def end(self, task: QueuedTask, changes: Changes) -> None:
        """Take *task* from under its lease for good: its ready row is deleted in this batch."""
        self._remove(task, changes)

    def hand_back(self, tasks: list[QueuedTask], changes: Changes) -> None:
        """Take *tasks* from under their leases while their ready rows stay: the lease rows must say so."""
        leases: dict[int, Lease] = {}
        for task in tasks:
            lease = self._remove(task, changes)
            leases[lease.token] = lease
        for lease in leases.values():
            if lease.live:
                self.write(lease, changes)

    def mark_started(self, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        """Note that *tasks* really run, from *now* until their timeout and the grace have passed."""
        leases: dict[int, Lease] = {}
        for task in tasks:
            if task.lease is None or task.started_at:
                continue
            task.started_at = now
            self._watch(task, task.lease)
            leases[task.lease.token] = task.lease
        for lease in leases.values():
            self.write(lease, changes)

    def date_fresh(self, now: int) -> None:
        """Give the deliveries granted since the last call their deadlines, counted from *now*."""
        for lease in self._fresh:
            if lease.live:
                timeout_ms = max(task.spec.timeout_ms for task in lease.tasks if task is not None)
                heappush(self._deadlines, (now + timeout_ms + self._grace_ms, lease.token, _WHOLE))
        self._fresh.clear()
        if len(self._deadlines) > 2 * len(self.running) + _DEADLINES_SLACK:
            # Most tasks settle long before their deadline: without this an hour of them would stay.
            self._deadlines = [entry for entry in self._deadlines if self._tasks_at(entry[1], entry[2])]
            heapify(self._deadlines)

    def overdue(self, now: int, bytes_max: int) -> list[QueuedTask]:
        """Return the tasks whose deadline has passed, until their records and leases' rows reach *bytes_max*."""
        found: list[QueuedTask] = []
        counted: set[int] = set()
        size = 0
        while self._deadlines and self._deadlines[0][0] <= now and size < bytes_max:
            _, token, index = heappop(self._deadlines)
            tasks = self._tasks_at(token, index)
            found += tasks
            size += sum(len(task.record) for task in tasks)
            if tasks and token not in counted:
                counted.add(token)
                size += self._by_token[token].row_bytes
        return found

    def next_deadline(self) -> int | None:
        """Return the earliest deadline, which may be one of a task settled since."""
        return self._deadlines[0][0] if self._deadlines else None

    def write(self, lease: Lease, changes: Changes) -> None:
        """Write the lease's row."""
        tasks = lease.tasks
        keys = [None if task is None else task.key for task in tasks]
        started = [index for index, task in enumerate(tasks) if task is not None and task.started_at]
        changes.writes[LEASE + u64(lease.token)] = encode_row(LeaseRow(lease.session, lease.alone, keys, started))

    def _add(self, lease: Lease) -> None:
        self._by_token[lease.token] = lease
        self._by_session.setdefault(lease.session, {})[lease.token] = lease

    def _watch(self, task: QueuedTask, lease: Lease) -> None:
        lease.started += 1
        deadline = task.started_at + task.spec.timeout_ms + self._grace_ms
        heappush(self._deadlines, (deadline, lease.token, task.index))

    def _tasks_at(self, token: int, index: int) -> list[QueuedTask]:
        """Return the tasks that a deadline is still for."""
        lease = self._by_token.get(token)
        if lease is None:
            return []
        if index == _WHOLE:
            return [task for task in lease.tasks if task is not None and not task.started_at]
        task = lease.tasks[index]
        return [] if task is None else [task]

    def _remove(self, task: QueuedTask, changes: Changes) -> Lease:
        lease = task.lease
        assert lease is not None, "only a task under a lease can leave it"
        lease.tasks[task.index] = None
        lease.live -= 1
        if task.started_at:
            lease.started -= 1
        del self.running[task.id]
        flow = task.flow
        flow.held -= 1
        flow.queue.running_count -= 1
        if not lease.live:
            del self._by_token[lease.token]
            held = self._by_session[lease.session]
            del held[lease.token]
            if not held:
                del self._by_session[lease.session]
            changes.writes[LEASE + u64(lease.token)] = None
        return lease
