"""Custody: what workers do with the tasks they hold, from their first word to their last.

Invariant: a task leaves a worker in the batch that tells the worker so: what is taken
from one that may still run it is revoked, what it named and does not hold too.
"""

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
        """Take up a worker's session: what it lists stays with it, what it does not goes back."""
        worker, resumed = self._workers.register(command.session, command.secret, command.info, now, changes)
        claimed: dict[tuple[int, int], bool] = {}
        for token, indexes, started in command.held:
            running = set(started)
            claimed.update({(token, index): index in running for index in indexes})
        held = self._leases.held_by(worker.session)
        mine = {(task.lease.token, task.index): task for task in held if task.lease is not None}
        self._give_back([task for place, task in mine.items() if place not in claimed], worker, now, changes)
        begun = [mine[place] for place, started in claimed.items() if started and place in mine]
        self._leases.mark_started(begun, now, changes)
        return Registered(resumed, [place for place in claimed if place not in mine])

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

    def mark_started(self, command: commands.MarkStarted, now: int, changes: Changes) -> None:
        """Note which tasks really run."""
        worker = self._workers.known(command.session)
        worker.seen_at = now
        self._leases.mark_started(self._tasks_of(command, worker, changes), now, changes)

    def release(self, command: commands.Release, now: int, changes: Changes) -> None:
        """Take tasks back unharmed."""
        worker = self._workers.known(command.session)
        self._give_back(self._tasks_of(command, worker, changes), worker, now, changes)

    def beat(self, command: commands.Beat, now: int, changes: Changes) -> None:
        """Note that a worker lives."""
        self._workers.known(command.session).beat(command.progress, command.blocked_by, now)

    def disconnect(self, command: commands.Disconnect, now: int, changes: Changes) -> None:
        """Note that a worker's connection ended: its leases go on for their time."""
        worker = self._workers.get(command.session)
        if worker is not None:
            worker.connected = False

    def leave(self, command: commands.Leave, now: int, changes: Changes) -> None:
        """Take back all that a worker holds, and forget it."""
        worker = self._workers.known(command.session)
        self._give_back(list(self._leases.held_by(worker.session)), worker, now, changes)
        self._lanes.unsubscribe(worker)
        self._workers.remove(worker, changes)

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
            held = self._leases.held_by(worker.session)
            self._lose([task for task in held if not task.started_at], worker, now, changes)
        for worker in self._workers.silent(now):
            if size >= SLICE_BYTES:
                return size
            part: list[QueuedTask] = []
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
    ) -> list[QueuedTask]:
        """Return the tasks that *worker* named; it is told of those that are not its own."""
        found: dict[int, QueuedTask] = {}
        lost: list[tuple[int, int]] = []
        for token, index in command.tasks:
            task = self._leases.find(worker.session, token, index)
            if task is None:
                lost.append((token, index))
            else:
                found[id(task)] = task
        if lost:
            changes.revocations.append(Revocation(worker.session, lost))
        return list(found.values())

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
