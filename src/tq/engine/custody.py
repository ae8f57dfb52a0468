"""Custody: what workers do with the tasks they hold, from their first word to their last.

Invariant: a task leaves a worker in the batch that tells the worker so: what is taken
from one that may still run it is revoked, what it named and does not hold too.  No command
deals with more tasks than one change may: of the rest it says that a later batch is to be asked.
"""

from collections.abc import Iterable

from tq.core.limits import CHANGE_BYTES_MAX
from tq.engine import commands
from tq.engine.changes import Changes, Revocation
from tq.engine.commands import Registered
from tq.engine.dispatch import Lanes
from tq.engine.flows import QueuedTask
from tq.engine.leases import Leases
from tq.engine.operations import SLICE_BYTES
from tq.engine.queues import Queue, Queues
from tq.engine.settle import Settler
from tq.engine.workers import WINDOW_BYTES_MAX, WINDOW_TASKS_MAX, Workers, WorkerSession

# So many tasks of a worker one command deals with.
HELD_TASKS_MAX = 1_000
# The rows of a task given back: 30 bytes of its key, 17 of its id, if its queue was purged.
_TASK_BYTES = 48


class Custody:
    """The commands of workers, and the end of their leases by time."""

    def __init__(self, queues: Queues, leases: Leases, workers: Workers, lanes: Lanes, settler: Settler) -> None:
        self._queues = queues
        self._leases = leases
        self._workers = workers
        self._lanes = lanes
        self._settler = settler

    def settle(self, command: commands.Settle, now: int, changes: Changes) -> commands.Settled:
        """Settle outcomes (see `Settler.apply`); the answer says which are not the worker's."""
        worker = self._workers.known(command.session)
        worker.seen_at = now
        return self._settler.apply(command, worker, now, changes)

    def register(self, command: commands.Register, now: int, changes: Changes) -> Registered:
        """Take up a worker's session: what it lists stays with it, what it does not goes back.

        As much as the batch has room for: until it is asked again the worker has no window.
        """
        worker, resumed = self._workers.register(command.session, command.secret, command.info, now, changes)
        claimed: dict[tuple[int, int], bool] = {}
        for token, indexes, started in command.held:
            running = set(started)
            claimed.update({(token, index): index in running for index in indexes})
        held = self._leases.held_by(worker.session)
        mine = {(task.lease.token, task.index): task for task in held if task.lease is not None}
        back = [task for place, task in mine.items() if place not in claimed]
        part = _part(back, CHANGE_BYTES_MAX // 2)
        self._give_back(part, worker, now, changes)
        rest = len(part) < len(back)
        if not rest:
            begun = [mine[place] for place, started in claimed.items() if started and place in mine]
            fresh = [task for task in begun if not task.started_at]
            marked = _part(fresh, CHANGE_BYTES_MAX // 2, count_max=HELD_TASKS_MAX - len(part))
            self._leases.mark_started(marked, now, changes)
            rest = len(marked) < len(fresh)
        return Registered(resumed, [place for place in claimed if place not in mine], rest)

    def subscribe(self, command: commands.Subscribe, now: int, changes: Changes) -> None:
        """Let a worker serve the queues it names, made now if need be; a refusal changes nothing."""
        worker = self._workers.known(command.session)
        self._queues.check_names([name for name, _ in command.queues])
        queues: dict[Queue, int] = {}
        for name, weight in command.queues:
            queues[self._queues.provide(name)] = max(1, weight)
        self._lanes.subscribe(worker, queues, weighted=command.weighted)

    def set_window(self, command: commands.SetWindow, now: int, changes: Changes) -> None:
        """Note how much a worker is willing to hold."""
        worker = self._workers.known(command.session)
        worker.window_tasks = min(command.tasks, WINDOW_TASKS_MAX)
        worker.window_bytes = min(command.payload_bytes, WINDOW_BYTES_MAX)

    def set_reading(self, command: commands.SetReading, now: int, changes: Changes) -> None:
        """Note whether a worker reads what it is sent; an unknown one is gone and needs nothing."""
        worker = self._workers.get(command.session)
        if worker is not None:
            worker.reads = command.reads

    def mark_started(self, command: commands.MarkStarted, now: int, changes: Changes) -> list[tuple[int, int]]:
        """Note which tasks really run; returns those that the batch has no room for."""
        worker = self._workers.known(command.session)
        worker.seen_at = now
        tasks, rest = self._tasks_of(command, worker, changes)
        self._leases.mark_started(tasks, now, changes)
        return rest

    def release(self, command: commands.Release, now: int, changes: Changes) -> list[tuple[int, int]]:
        """Take tasks back unharmed; returns those that the batch has no room for."""
        worker = self._workers.known(command.session)
        tasks, rest = self._tasks_of(command, worker, changes)
        self._give_back(tasks, worker, now, changes)
        return rest

    def beat(self, command: commands.Beat, now: int, changes: Changes) -> None:
        """Note that a worker lives."""
        worker = self._workers.known(command.session)
        worker.beat(command.progress, now)
        worker.blocked_by, worker.stuck = command.blocked_by, command.stuck

    def disconnect(self, command: commands.Disconnect, now: int, changes: Changes) -> None:
        """Note that a worker's connection ended: its leases go on for their time."""
        worker = self._workers.get(command.session)
        if worker is not None:
            worker.connected = False

    def leave(self, command: commands.Leave, now: int, changes: Changes) -> bool:
        """Take back what a worker holds, as much as the batch has room for; True if that was all: then it is gone."""
        worker = self._workers.known(command.session)
        worker.seen_at = now
        self._lanes.unsubscribe(worker)
        self._give_back(_part(self._leases.held_by(worker.session), CHANGE_BYTES_MAX // 2), worker, now, changes)
        if worker.held_tasks:
            return False
        self._workers.remove(worker, changes)
        return True

    # ------------------------------------------------------------------ time

    def take_back(self, now: int, changes: Changes) -> int:
        """Take back a slice of what is overdue, what stalled workers have not started, and what silent ones hold.

        Returns how many bytes that were.
        """
        size = 0
        overdue: dict[bytes, list[QueuedTask]] = {}
        for task in self._leases.overdue(now, SLICE_BYTES):
            assert task.lease is not None, "an overdue task is under a lease"
            size += len(task.record)
            overdue.setdefault(task.lease.session, []).append(task)
        for session, tasks in overdue.items():
            holder = self._workers.known(session)
            started = [task for task in tasks if task.started_at]
            waiting = [task for task in tasks if not task.started_at]
            self._lose(started, holder, now, changes)
            self._revoke(waiting, holder, changes)
            self._give_back(waiting, holder, now, changes)
        for worker in self._workers.stuck(now):
            worker.stalled = True
            if size >= SLICE_BYTES:
                return size
            held = [task for task in self._leases.held_by(worker.session) if not task.started_at]
            part = _part(held, SLICE_BYTES - size)
            size += sum(len(task.record) for task in part)
            self._lose(part, worker, now, changes)
            worker.relieved = len(part) == len(held)
        for worker in self._workers.silent(now):
            if size >= SLICE_BYTES:
                return size
            part = []
            for task in self._leases.held_by(worker.session):
                if size and size + len(task.record) > SLICE_BYTES:
                    break
                size += len(task.record)
                part.append(task)
            self._lose(part, worker, now, changes)
            if not worker.held_tasks:
                self._lanes.unsubscribe(worker)
                self._workers.remove(worker, changes)
                changes.expelled.append(worker.session)
            else:
                return size
        return size

    # ------------------------------------------------------------------ leases and their workers

    def _tasks_of(
        self, command: commands.MarkStarted | commands.Release, worker: WorkerSession, changes: Changes
    ) -> tuple[list[QueuedTask], list[tuple[int, int]]]:
        """Return the tasks that *worker* named, and the places for which there is no room.

        The worker is told of those that are not its own.
        """
        found: dict[int, QueuedTask] = {}
        lost: list[tuple[int, int]] = []
        room = _Room(CHANGE_BYTES_MAX // 2)
        count = 0
        for token, index in command.tasks[:HELD_TASKS_MAX]:
            task = self._leases.find(worker.session, token, index)
            if task is None:
                lost.append((token, index))
            elif room.take(task):
                found[id(task)] = task
            else:
                break
            count += 1
        if lost:
            changes.revocations.append(Revocation(worker.session, lost))
        return list(found.values()), command.tasks[count:]

    def _give_back(self, tasks: list[QueuedTask], worker: WorkerSession, now: int, changes: Changes) -> None:
        for task in tasks:
            worker.drop(task)
        self._settler.release(tasks, now, changes)

    def _lose(self, tasks: list[QueuedTask], worker: WorkerSession, now: int, changes: Changes) -> None:
        self._revoke(tasks, worker, changes)
        for task in tasks:
            worker.drop(task)
        self._settler.lose(tasks, now, changes)

    @staticmethod
    def _revoke(tasks: list[QueuedTask], worker: WorkerSession, changes: Changes) -> None:
        places = [(int(task.lease.token), task.index) for task in tasks if task.lease is not None]
        if places:
            changes.revocations.append(Revocation(worker.session, places))


class _Room:
    """What is left of one change for the rows of tasks and of their leases."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._leases: set[int] = set()

    def take(self, task: QueuedTask) -> bool:
        """Take what *task* needs; False if there is not so much, except for the first."""
        assert task.lease is not None, "what is held is under a lease"
        size = _TASK_BYTES
        if task.lease.token not in self._leases:
            size += task.lease.row_bytes
        if self._leases and size > self._left:
            return False
        self._left -= size
        self._leases.add(task.lease.token)
        return True


def _part(tasks: Iterable[QueuedTask], bytes_max: int, *, count_max: int = HELD_TASKS_MAX) -> list[QueuedTask]:
    """Return as many of *tasks*, from the first, as one change has room for."""
    room = _Room(bytes_max)
    part: list[QueuedTask] = []
    for task in tasks:
        if len(part) >= count_max or not room.take(task):
            break
        part.append(task)
    return part
