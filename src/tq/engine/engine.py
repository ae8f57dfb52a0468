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

from tq.core.queue import QueueView
from tq.core.times import DAY, HOUR, SECOND
from tq.engine import commands
from tq.engine.cancel import cancel
from tq.engine.changes import Changes, Reader
from tq.engine.commands import Command
from tq.engine.control import Control
from tq.engine.custody import Custody
from tq.engine.dispatch import Lanes
from tq.engine.enqueue import Enqueuer
from tq.engine.flows import HeadsBudget
from tq.engine.leases import Leases
from tq.engine.lookup import Lookup
from tq.engine.meta import Meta
from tq.engine.operations import Operations
from tq.engine.overview import Overview
from tq.engine.pages import Pages
from tq.engine.passage import Passage
from tq.engine.places import MOVES
from tq.engine.queues import Queues
from tq.engine.restore import restore_flows, restore_leases
from tq.engine.retention import Retention
from tq.engine.settle import Settler
from tq.engine.timeline import Timeline
from tq.engine.waiters import Waiters
from tq.engine.workers import Workers

A = TypeVar("A")


# What these write may be lost by a crash, though they were answered: a lease expires, a mark is made again, and what
# time does it does once more.  All other commands are promises.
_MAY_BE_LOST = frozenset({
    commands.MarkStarted, commands.Release, commands.SetWindow, commands.SetReading, commands.Beat,
    commands.Disconnect, commands.Unwait, commands.Wait, commands.Get, commands.ListTasks, commands.ListQueues,
    commands.ListWorkers, commands.GetTotals, commands.Tick,
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
        self._lanes = Lanes(self._queues, self._leases)
        self._operations = Operations(self._meta, self._queues, self._timeline, self._waiters)
        self._lookup = Lookup(self._queues, self._leases, self._workers, self._waiters)
        self._pages = Pages(self._queues, self._leases, self._workers)
        self._overview = Overview(self._queues, self._leases, self._workers, self._lanes, self._operations)
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
        self._custody = Custody(self._queues, self._leases, self._workers, self._lanes, self._settler)
        self._control = Control(self._queues, self._lanes, self._operations)
        self._passage = Passage(
            self._meta, self._queues, self._leases, self._workers, self._timeline,
            self._retention, self._operations, self._waiters, self._custody,
        )  # fmt: skip
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
        return self._lanes.dispatch(changes)

    def seal(self, now: int, changes: Changes) -> None:
        """Complete a batch before it is committed."""
        self._leases.date_fresh(now)
        self._retention.write_noted(changes)
        self._queues.write_touched(changes)
        if changes.writes:
            self._meta.keep_clock(now, changes)

    def next_tick(self, now: int) -> int:
        """Return when a `Tick` has something to do next."""
        return self._passage.next_tick(now)

    # ------------------------------------------------------------------ commands

    def _table(self) -> dict[type, Callable[..., object]]:
        c = commands
        return {
            c.Enqueue: self._enqueuer.apply,
            c.Settle: self._custody.settle,
            c.Register: self._custody.register,
            c.Subscribe: self._custody.subscribe,
            c.SetWindow: self._custody.set_window,
            c.SetReading: self._custody.set_reading,
            c.MarkStarted: self._custody.mark_started,
            c.Release: self._custody.release,
            c.Beat: self._custody.beat,
            c.Disconnect: self._custody.disconnect,
            c.Leave: self._custody.leave,
            c.Wait: lambda k, _, changes: self._lookup.wait(k.ids, k.connection, changes),
            c.Unwait: self._unwait,
            c.Get: lambda k, _, changes: self._lookup.get(k.ids, changes),
            c.ListTasks: lambda k, _, changes: self._pages.page(k.state, k.queue, k.limit, k.cursor, changes),
            c.Cancel: self._cancel,
            c.ListQueues: self._list_queues,
            c.PauseQueue: self._control.pause,
            c.PurgeQueue: self._control.purge,
            c.RedriveDead: lambda k, now, changes: self._control.act_on_dead("redrive", k.queue, k.ids, now, changes),
            c.ForgetDead: lambda k, now, changes: self._control.act_on_dead("forget", k.queue, k.ids, now, changes),
            c.ListWorkers: lambda k, *_: self._overview.workers(k.limit, k.cursor),
            c.GetTotals: lambda *_: self._overview.totals(),
            c.Tick: self._passage.tick,
        }

    def _unwait(self, command: commands.Unwait, now: int, changes: Changes) -> None:
        if command.ids is None:
            self._waiters.forget(command.connection)
            return
        for task_id in command.ids:
            self._waiters.remove(task_id, command.connection)

    def _cancel(self, command: commands.Cancel, now: int, changes: Changes) -> list[tuple[bytes, str, str]]:
        return cancel(command.ids, self._queues, self._leases, self._settler, now, changes)

    def _list_queues(
        self, command: commands.ListQueues, now: int, changes: Changes
    ) -> tuple[list[QueueView], bytes | None]:
        if command.name is not None:
            return [self._overview.queue(command.name, changes)], None
        return self._overview.queues(command.limit, command.cursor)

    def check_secret(self, session: bytes, secret: bytes) -> None:
        """Make sure that who speaks for a worker knows its secret (raises SessionUnknown)."""
        self._workers.check_secret(session, secret)


# All movers are loaded by now: the engine is not without one that the life cycle asks for.
MOVES.check()
