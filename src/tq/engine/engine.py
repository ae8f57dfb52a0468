"""The engine: the state machine of the queue, put together.

    changes = engine.changes()                      # a batch begins
    answer = engine.apply(command, now, changes)    # as often as commands come
    engine.dispatch(changes)                        # ready tasks go to workers with room
    engine.seal(now, changes)                       # counters, clock and expiry rows join the batch
    ... commit changes.writes, and only then let answers, deliveries and endings out

Invariant: everything the engine remembers is in the rows it has written; losing the
object and restoring another from the store loses nothing but waits and heartbeats.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import msgspec

from tq.core.lifecycle import Step, TaskState
from tq.core.outcome import TaskResult
from tq.core.queue import QueueView
from tq.core.times import DAY, HOUR, SECOND, Timestamp
from tq.core.worker import WorkerView
from tq.engine import commands
from tq.engine.cancel import cancel
from tq.engine.changes import Changes, Reader, Revocation
from tq.engine.commands import Command, Registered
from tq.engine.dispatch import Dispatcher
from tq.engine.enqueue import Enqueuer, put_ready
from tq.engine.flows import HeadsBudget, QueuedTask
from tq.engine.leases import Leases
from tq.engine.lookup import Lookup
from tq.engine.meta import Meta
from tq.engine.operations import SLICE_BYTES, SLICE_ROWS, Operations
from tq.engine.places import MOVES, moves
from tq.engine.queues import Queue, Queues
from tq.engine.restore import restore_flows, restore_leases
from tq.engine.retention import Retention
from tq.engine.rows import DUE, READY, TASK, decode_record, split_scheduled
from tq.engine.settle import Settler
from tq.engine.timeline import Timeline
from tq.engine.waiters import Waiters
from tq.engine.workers import WINDOW_BYTES_MAX, WINDOW_TASKS_MAX, Workers, WorkerSession

A = TypeVar("A")

_SWEPT_MAX = 1_000
_SWEEP_MS = 60 * SECOND


# What these write may be lost by a crash, though they were answered: a lease expires, a mark is made again, and what
# time does it does once more.  All other commands are promises.
_MAY_BE_LOST = frozenset({
    commands.MarkStarted, commands.Release, commands.SetWindow, commands.SetReading, commands.Beat,
    commands.Disconnect, commands.Unwait, commands.Wait, commands.Get, commands.ListTasks, commands.ListQueues,
    commands.ListWorkers, commands.Tick,
})  # fmt: skip


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the engine must know of the broker's settings.

    ``grace_ms``: how long after a task's timeout its worker may still settle it.
    ``heads_bytes_max``: what the heads of all flows together may hold in memory.
    """

    lease_ms: int = 10 * SECOND
    grace_ms: int = 10 * SECOND
    payload_bytes_max: int = 256 * 1024
    frame_memory_ms: int = HOUR
    dead_retention_ms: int = 30 * DAY
    queues_max: int = 100_000
    heads_bytes_max: int = 64 * 1024 * 1024


class Engine:
    """The queue as a state machine over *reader*; *draw* gives the random numbers for jitter."""

    def __init__(self, reader: Reader, settings: EngineSettings, draw: Callable[[], float]) -> None:
        self._reader = reader
        self._settings = settings
        self._leases = Leases(settings.grace_ms)
        self._waiters = Waiters()
        self._meta = Meta()
        self._queues = Queues(HeadsBudget(settings.heads_bytes_max), self._leases.running, settings.queues_max)
        self._workers = Workers(settings.lease_ms)
        self._timeline = Timeline(self._meta)
        self._retention = Retention(self._meta, self._queues, settings.frame_memory_ms)
        self._dispatcher = Dispatcher(self._queues, self._leases)
        self._operations = Operations(self._meta, self._queues, self._timeline, self._waiters)
        self._lookup = Lookup(self._queues, self._leases, self._workers, self._waiters)
        self._enqueuer = Enqueuer(
            self._meta,
            self._queues,
            payload_bytes_max=settings.payload_bytes_max,
            frame_memory_ms=settings.frame_memory_ms,
        )
        self._settler = Settler(
            self._meta, self._queues, self._leases, self._timeline, self._retention, self._waiters,
            draw=draw, payload_bytes_max=settings.payload_bytes_max, dead_retention_ms=settings.dead_retention_ms,
        )  # fmt: skip
        self._next_sweep = 0
        self._first_part = 0
        self._handlers = self._table()

    # ------------------------------------------------------------------ a batch

    def restore(self, now: int) -> tuple[Changes, int]:
        """Take up the rows found in the store, begin a new epoch.

        Returns the changes, which must be durable before anything else is done, and the
        engine's time, which is not before any that it has seen.

        Raises:
            StoreTooNew: The rows are of a later version.
        """
        changes = self.changes()
        now = max(now, self._meta.restore(self._reader, changes))
        self._leases.begin_epoch(self._meta.epoch)
        self._queues.restore(self._reader)
        restore_flows(self._queues, self._reader)
        self._workers.restore(self._reader, now)
        restore_leases(self._queues, self._leases, self._workers, self._settler, self._reader, now, changes)
        self._timeline.restore(self._reader)
        self._retention.restore(self._reader)
        self._operations.restore(self._reader)
        self.seal(now, changes)
        return changes, now

    def changes(self) -> Changes:
        """Begin a batch."""
        return Changes(self._reader)

    def apply(self, command: Command[A], now: int, changes: Changes) -> A:
        """Do *command* at instant *now*; what it changes and lets out joins *changes*.

        Raises:
            BrokerError: It was refused, and changed nothing.
        """
        kind = type(command)
        if kind not in _MAY_BE_LOST:
            changes.promised = True
        return cast(A, self._handlers[kind](command, now, changes))

    def dispatch(self, changes: Changes) -> bool:
        """Hand out ready tasks; tells whether there may be more than one batch of them."""
        return self._dispatcher.dispatch(changes)

    def seal(self, now: int, changes: Changes) -> None:
        """Complete a batch before it is committed."""
        self._leases.date_fresh(now)
        self._retention.write_noted(changes)
        self._queues.write_touched(changes)
        if changes.writes:
            self._meta.keep_clock(now, changes)

    def next_tick(self, now: int) -> int:
        """Return when a `Tick` has something to do next."""
        if len(self._operations):
            return now
        times = (
            self._timeline.next_due,
            self._leases.next_deadline(),
            self._workers.next_over(),
            self._retention.next_at(),
        )
        return min([time for time in times if time is not None] + [self._next_sweep])

    # ------------------------------------------------------------------ commands

    def _table(self) -> dict[type, Callable[..., object]]:
        c = commands
        return {
            c.Enqueue: self._enqueuer.apply,
            c.Settle: self._settle,
            c.Register: self._register,
            c.Subscribe: self._subscribe,
            c.SetWindow: self._set_window,
            c.SetReading: self._set_reading,
            c.MarkStarted: self._mark_started,
            c.Release: self._release,
            c.Beat: self._beat,
            c.Disconnect: self._disconnect,
            c.Leave: self._leave,
            c.Wait: lambda k, _, changes: self._lookup.wait(k.ids, k.connection, changes),
            c.Unwait: self._unwait,
            c.Get: lambda k, _, changes: self._lookup.get(k.ids, changes),
            c.ListTasks: lambda k, _, changes: self._lookup.page(k.state, k.queue, k.limit, k.cursor, changes),
            c.Cancel: self._cancel,
            c.ListQueues: lambda k, _, changes: self._list_queues(k.name, changes),
            c.PauseQueue: self._pause,
            c.PurgeQueue: lambda k, _, changes: self._operations.purge(self._queues.named(k.name), changes),
            c.RedriveDead: lambda k, now, changes: self._act_on_dead("redrive", k.queue, k.ids, now, changes),
            c.ForgetDead: lambda k, now, changes: self._act_on_dead("forget", k.queue, k.ids, now, changes),
            c.ListWorkers: lambda *_: self._list_workers(),
            c.Tick: self._tick,
        }

    def _settle(self, command: commands.Settle, now: int, changes: Changes) -> commands.Settled:
        worker = self._workers.known(command.session)
        worker.seen_at = now
        return self._settler.apply(command, worker, now, changes)

    def _register(self, command: commands.Register, now: int, changes: Changes) -> Registered:
        worker, resumed = self._workers.register(command.session, command.secret, command.info, now, changes)
        claimed: dict[tuple[int, int], bool] = {}
        for token, indexes, started in command.held:
            running = set(started)
            claimed.update({(token, index): index in running for index in indexes})
        mine = {(task.lease.token, task.index): task for task in self._held_by(worker) if task.lease is not None}
        self._give_back([task for place, task in mine.items() if place not in claimed], worker, now, changes)
        begun = [mine[place] for place, started in claimed.items() if started and place in mine]
        self._leases.mark_started(begun, now, changes)
        return Registered(resumed, [place for place in claimed if place not in mine])

    def _subscribe(self, command: commands.Subscribe, now: int, changes: Changes) -> None:
        worker = self._workers.known(command.session)
        self._queues.check_names([name for name, _ in command.queues])
        queues: dict[Queue, int] = {}
        for name, weight in command.queues:
            queues[self._queues.provide(name)] = max(1, weight)
        self._dispatcher.subscribe(worker, queues, weighted=command.weighted)

    def _set_window(self, command: commands.SetWindow, now: int, changes: Changes) -> None:
        worker = self._workers.known(command.session)
        worker.window_tasks = min(command.tasks, WINDOW_TASKS_MAX)
        worker.window_bytes = min(command.payload_bytes, WINDOW_BYTES_MAX)

    def _set_reading(self, command: commands.SetReading, now: int, changes: Changes) -> None:
        worker = self._workers.get(command.session)
        if worker is not None:
            worker.reads = command.reads

    def _mark_started(self, command: commands.MarkStarted, now: int, changes: Changes) -> None:
        worker = self._workers.known(command.session)
        worker.seen_at = now
        self._leases.mark_started(self._found(command, worker, changes), now, changes)

    def _release(self, command: commands.Release, now: int, changes: Changes) -> None:
        worker = self._workers.known(command.session)
        self._give_back(self._found(command, worker, changes), worker, now, changes)

    def _beat(self, command: commands.Beat, now: int, changes: Changes) -> None:
        self._workers.known(command.session).beat(command.progress, command.blocked_by, now)

    def _disconnect(self, command: commands.Disconnect, now: int, changes: Changes) -> None:
        worker = self._workers.get(command.session)
        if worker is not None:
            worker.connected = False

    def _leave(self, command: commands.Leave, now: int, changes: Changes) -> None:
        worker = self._workers.known(command.session)
        self._give_back(self._held_by(worker), worker, now, changes)
        self._dispatcher.unsubscribe(worker)
        self._workers.remove(worker, changes)

    def _unwait(self, command: commands.Unwait, now: int, changes: Changes) -> None:
        if command.ids is None:
            self._waiters.forget(command.connection)
            return
        for task_id in command.ids:
            self._waiters.remove(task_id, command.connection)

    def _cancel(self, command: commands.Cancel, now: int, changes: Changes) -> list[tuple[bytes, str, str]]:
        return cancel(command.ids, self._queues, self._leases, self._settler, now, changes)

    def _pause(self, command: commands.PauseQueue, now: int, changes: Changes) -> int:
        queue = self._queues.named(command.name)
        queue.row.paused = command.paused
        self._queues.touch(queue)
        if not command.paused:
            self._dispatcher.wake_all(queue)
        return queue.ready

    def _act_on_dead(self, kind: str, name: str | None, ids: list[bytes], now: int, changes: Changes) -> int:
        if ids:
            return self._operations.act_on_ids(kind, ids, now, changes)
        queues = [self._queues.named(name)] if name is not None else list(self._queues.all())
        return self._operations.act_on_dead(kind, queues, now, changes)

    def _list_queues(self, name: str | None, changes: Changes) -> list[QueueView]:
        if name is None:
            return [self._queue_view(queue, None) for queue in self._queues.all()]
        queue = self._queues.named(name)
        served = self._dispatcher.names_served(queue)
        waiting: set[str] = set()
        for flow in queue.flows.values():
            if flow.name not in served and flow.name not in waiting and flow.waits(changes):
                waiting.add(flow.name)
        return [self._queue_view(queue, sorted(waiting))]

    def _queue_view(self, queue: Queue, unserved: list[str] | None) -> QueueView:
        row = queue.row
        return QueueView(
            name=row.name,
            paused=row.paused,
            ready=queue.ready,
            running=queue.running_count,
            scheduled=row.scheduled,
            dead=row.dead,
            workers=self._dispatcher.workers_of(queue),
            enqueued_total=row.enqueued_total,
            completed_total=row.completed_total,
            failed_total=row.failed_total,
            lost_total=row.lost_total,
            dead_total=row.dead_total,
            cancelled_total=row.cancelled_total,
            purged_total=row.purged_total,
            purging=self._operations.purging(queue),
            names_unserved=unserved,
        )

    def _list_workers(self) -> list[WorkerView]:
        started: dict[bytes, int] = {}
        for task in self._leases.running.values():
            if task.started_at and task.lease is not None:
                started[task.lease.session] = started.get(task.lease.session, 0) + 1
        return [
            WorkerView(
                session=worker.session,
                info=worker.info,
                queues=worker.queues,
                connected=worker.connected,
                registered_at=Timestamp(worker.registered_at),
                seen_at=Timestamp(worker.seen_at),
                held=worker.held_tasks,
                started=started.get(worker.session, 0),
                isolating=worker.isolating,
                blocked_by=worker.blocked_by,
            )
            for worker in self._workers.all()
        ]

    def check_secret(self, session: bytes, secret: bytes) -> None:
        """Make sure that who speaks for a worker knows its secret (raises SessionUnknown)."""
        self._workers.check_secret(session, secret)

    # ------------------------------------------------------------------ time

    def _tick(self, command: commands.Tick, now: int, changes: Changes) -> None:
        """Do a slice of each kind of work, in turns the one or the other first.

        All slices together are one bounded change.  A single task may be larger than its
        slice: then the others wait for the next tick.
        """
        parts = (self._move_due, self._lose_leases, self._retention.expire, self._operations.step)
        first = self._first_part = (self._first_part + 1) % len(parts)
        for part in (*parts[first:], *parts[:first]):
            if part(now, changes) > SLICE_BYTES:
                return
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_MS
            self._sweep_flows(now, changes)

    @moves(TaskState.SCHEDULED, Step.DUE, deletes=(DUE,), writes=(READY,))
    def _move_due(self, now: int, changes: Changes) -> int:
        """Let a slice of what is due go to its queues; returns how many bytes of tasks that were."""
        size = 0
        for _, value in self._timeline.take_due(now, SLICE_ROWS, SLICE_BYTES, changes):
            number, generation, encoded = split_scheduled(value)
            queue = self._queues.numbered(number)
            record = decode_record(encoded)
            if generation != queue.row.generation:  # purged while it waited
                changes.writes[TASK + record.id] = None
                self._waiters.tell(TaskResult(record.id, TaskState.CANCELLED, Timestamp(now)), changes)
                continue
            size += len(encoded)
            queue.row.scheduled -= 1
            put_ready(self._meta, self._queues, queue, record, changes)
        return size

    def _lose_leases(self, now: int, changes: Changes) -> int:
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
            self._lose([task for task in self._held_by(worker) if not task.started_at], worker, now, changes)
        for worker in self._workers.silent(now):
            if size >= SLICE_BYTES:
                return size
            held = self._held_by(worker)
            part = 0
            while part < len(held) and (not size or size + len(held[part].record) <= SLICE_BYTES):
                size += len(held[part].record)
                part += 1
            self._lose(held[:part], worker, now, changes)
            if part == len(held):
                self._dispatcher.unsubscribe(worker)
                self._workers.remove(worker, changes)
                changes.expelled.append(worker.session)
            else:
                return size
        return size

    def _sweep_flows(self, now: int, changes: Changes) -> None:
        closed = 0
        for queue in self._queues.all():
            for flow_id, flow in list(queue.flows.items()):
                if flow.is_empty() and not flow.held:
                    flow.close(changes)
                    del queue.flows[flow_id]
                    closed += 1
                    if closed == _SWEPT_MAX:
                        self._next_sweep = now
                        return

    # ------------------------------------------------------------------ leases and their workers

    def _held_by(self, worker: WorkerSession) -> list[QueuedTask]:
        session = worker.session
        return [
            task for task in self._leases.running.values() if task.lease is not None and task.lease.session == session
        ]

    def _found(
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


# All movers are loaded by now: the engine is not without one that the life cycle asks for.
MOVES.check()
