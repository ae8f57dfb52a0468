"""Bugs, each as small as a slip of the hand, that the simulator must find."""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import pytest

from tq.broker.batch import Batch
from tq.broker.commit import GroupCommit
from tq.broker.outlet import Outlet
from tq.broker.service import BrokerService
from tq.broker.turns import Turns
from tq.client.async_client import AsyncClient
from tq.core.errors import ConnectionLost
from tq.core.lease import first_token
from tq.core.task import TaskRecord
from tq.engine import engine, operations, passage
from tq.engine.cancel import cancel
from tq.engine.changes import Changes
from tq.engine.commands import Enqueue, PauseQueue, Settle, Settled
from tq.engine.control import Control
from tq.engine.custody import Custody
from tq.engine.dispatch import Lane, Lanes
from tq.engine.enqueue import Enqueuer, put_ready
from tq.engine.flows import Flow, QueuedTask
from tq.engine.leases import Leases
from tq.engine.meta import Meta
from tq.engine.queues import Queue, Queues
from tq.engine.retention import Retention
from tq.engine.rows import FRAME, split_scheduled
from tq.engine.settle import Settler
from tq.engine.timeline import Timeline
from tq.engine.workers import WorkerSession
from tq.protocol import messages
from tq.store.base import Commit
from tq.testing.scenario import Act, Fault
from tq.worker import dispatcher as worker_dispatcher
from tq.worker.assignment import Assignment
from tq.worker.holdings import Holdings
from tq.worker.pools.parent import ParentEnd
from tq.worker.pools.processes import ProcessPool


def a_reply_leaves_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    say_around_commit(patch, is_said_first=True)


def a_reply_leaves_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    say_around_commit(patch, is_said_first=False)


def say_around_commit(patch: pytest.MonkeyPatch, *, is_said_first: bool) -> None:
    advance, let_out = GroupCommit.advance, Outlet.let_out

    def hasty(self: GroupCommit, now: int, *, hand_out: bool) -> None:
        batch, commit = self.batch, self._store.commit

        def commit_and_say(writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
            if is_said_first:
                self._let_out(batch)
            committing = commit(writes, sync=sync)
            if not is_said_first:
                self._let_out(batch)
            return committing

        with pytest.MonkeyPatch.context() as for_now:
            for_now.setattr(self._store, "commit", commit_and_say)
            advance(self, now, hand_out=hand_out)

    said: list[Batch] = []

    def once(self: Outlet, batch: Batch) -> None:
        if batch not in said:
            said.append(batch)
            let_out(self, batch)

    patch.setattr(GroupCommit, "advance", hasty)
    patch.setattr(Outlet, "let_out", once)


def a_frame_is_not_remembered(patch: pytest.MonkeyPatch) -> None:
    apply = Enqueuer.apply

    def forgetful(self: Enqueuer, command: Enqueue, now: int, changes: Changes) -> list[tuple[int, str, str]]:
        refused = apply(self, command, now, changes)
        changes.writes.pop(FRAME + command.frame_id, None)
        return refused

    patch.setattr(Enqueuer, "apply", forgetful)


def a_restart_begins_no_new_epoch(patch: pytest.MonkeyPatch) -> None:
    def begin_epoch(self: Leases, epoch: int) -> None:
        self._next_token = first_token(1)

    patch.setattr(Leases, "begin_epoch", begin_epoch)


def a_loss_counts_for_what_had_not_started(patch: pytest.MonkeyPatch) -> None:
    lose = Settler.lose

    def harsh(self: Settler, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        for task in tasks:
            task.started_at = task.started_at or now
        lose(self, tasks, now, changes)

    patch.setattr(Settler, "lose", harsh)


def a_floor_is_one_too_far(patch: pytest.MonkeyPatch) -> None:
    write = Flow._write_floor

    def too_far(self: Flow, floor: int, changes: Changes) -> None:
        write(self, floor + 1, changes)

    patch.setattr(Flow, "_write_floor", too_far)


def time_passes_before_the_heartbeats_are_read(patch: pytest.MonkeyPatch) -> None:
    tick = BrokerService._tick

    def hasty(self: BrokerService) -> None:
        with pytest.MonkeyPatch.context() as for_now:
            for_now.setattr(Turns, "serve", lambda self, now: None)
            tick(self)

    patch.setattr(BrokerService, "_tick", hasty)


def a_settle_does_not_look_at_the_token(patch: pytest.MonkeyPatch) -> None:
    find = Leases.find

    def lenient(self: Leases, session: bytes, token: int, index: int) -> QueuedTask | None:
        held = find(self, session, token, index)
        if held is not None:
            return held
        for lease in self._by_token.values():
            if index < len(lease.tasks) and lease.tasks[index] is not None:
                return lease.tasks[index]
        return None

    patch.setattr(Leases, "find", lenient)


def a_flow_is_served_to_its_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "_second", lambda self: None)


def a_cancelled_task_stays_in_its_line(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flow, "drop", lambda self, seq: None)


def a_cancel_takes_a_running_task_too(patch: pytest.MonkeyPatch) -> None:
    def without_leases(
        ids: list[bytes], queues: Queues, leases: Leases, settler: Settler, now: int, changes: Changes
    ) -> list[tuple[bytes, str, str]]:
        return cancel(ids, queues, Leases(0), settler, now, changes)

    patch.setattr(engine, "cancel", without_leases)


def a_purge_spares_what_is_scheduled(patch: pytest.MonkeyPatch) -> None:
    class AnyGeneration(int):
        def __ne__(self, other: object) -> bool:
            return False

    def of_any_generation(value: bytes) -> tuple[int, int, bytes]:
        number, generation, record = split_scheduled(value)
        return number, AnyGeneration(generation), record

    patch.setattr(passage, "split_scheduled", of_any_generation)


def a_pause_is_said_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    may_be_lost(patch, PauseQueue)


def may_be_lost(patch: pytest.MonkeyPatch, command: type) -> None:
    patch.setattr(engine, "_MAY_BE_LOST", engine._MAY_BE_LOST | {command})


def a_pause_does_not_hold_for_what_was_about_to_go(patch: pytest.MonkeyPatch) -> None:
    top = Lane._top

    def heedless(self: Lane, changes: Changes) -> QueuedTask | None:
        paused = [queue.row for queue in self.weights if queue.row.paused]
        for row in paused:
            row.paused = False
        try:
            return top(self, changes)
        finally:
            for row in paused:
                row.paused = True

    patch.setattr(Lane, "_top", heedless)


def a_resume_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    pause = Control.pause

    def asleep(self: Control, command: PauseQueue, now: int, changes: Changes) -> int:
        with pytest.MonkeyPatch.context() as for_now:
            for_now.setattr(Lanes, "wake_all", staticmethod(lambda queue: None))
            return pause(self, command, now, changes)

    patch.setattr(Control, "pause", asleep)


def a_redriven_task_keeps_its_attempts(patch: pytest.MonkeyPatch) -> None:
    redrive_with(patch, lambda record: setattr(record, "attempts", 1))


def a_redriven_task_keeps_its_generation(patch: pytest.MonkeyPatch) -> None:
    redrive_with(patch, lambda record: setattr(record, "generation", record.generation - 1))


def redrive_with(patch: pytest.MonkeyPatch, spoil: Callable[[TaskRecord], None]) -> None:
    def spoilt(meta: Meta, queues: Queues, queue: Queue, record: TaskRecord, changes: Changes) -> None:
        spoil(record)
        put_ready(meta, queues, queue, record, changes)

    patch.setattr(operations, "put_ready", spoilt)


def an_end_is_looked_at_too_early(patch: pytest.MonkeyPatch) -> None:
    note = Retention.note
    patch.setattr(
        Retention,
        "note",
        staticmethod(lambda task_id, expires_at, changes: note(task_id, expires_at - 2_500, changes)),
    )


def an_end_is_never_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Retention, "_expire_ids", lambda self, now, changes: None)


def a_settle_is_told_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    apply = Settler.apply

    def unpromised(self: Settler, command: Settle, worker: WorkerSession, now: int, changes: Changes) -> Settled:
        was_promised = changes.promised
        settled = apply(self, command, worker, now, changes)
        changes.promised = was_promised
        return settled

    patch.setattr(Settler, "apply", unpromised)
    may_be_lost(patch, Settle)


def a_heartbeat_is_not_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Custody, "beat", lambda self, command, now, changes: None)


def a_settled_task_is_still_counted(patch: pytest.MonkeyPatch) -> None:
    leave = Settler._leave

    def uncounted(self: Settler, task: QueuedTask, changes: Changes) -> None:
        leave(self, task, changes)
        task.flow.queue.row.pending += 1

    patch.setattr(Settler, "_leave", uncounted)


def a_completed_task_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    complete = Settler._complete

    def uncounted(self: Settler, task: QueuedTask, result: bytes | None, now: int, changes: Changes) -> None:
        complete(self, task, result, now, changes)
        task.flow.queue.row.completed_total -= task.attempts > 0

    patch.setattr(Settler, "_complete", uncounted)


def a_due_task_stays_on_the_timeline(patch: pytest.MonkeyPatch) -> None:
    take_due = Timeline.take_due

    def kept(self: Timeline, now: int, limit: int, bytes_max: int, changes: Changes) -> list[tuple[bytes, bytes]]:
        rows = take_due(self, now, limit, bytes_max, changes)
        for key, value in rows:
            changes.writes[key] = value
        return rows

    patch.setattr(Timeline, "take_due", kept)


def a_new_task_goes_to_the_front(patch: pytest.MonkeyPatch) -> None:
    def append(self: Flow, task: QueuedTask) -> None:
        self._heads.appendleft(task)
        self._budget.used += task.charge
        self.cursor = task.seq + 1

    patch.setattr(Flow, "append", append)


def what_comes_back_wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "wake_front", lambda self, flow: None)


def a_suspect_is_handed_out_among_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QueuedTask, "suspect", property(lambda self: False))


def a_suspect_is_handed_out_out_of_turn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lanes, "_isolate", hasty_isolation(Lanes._isolate))


def hasty_isolation(isolate: Callable[[Lanes, Lane, Changes], None]) -> Callable[..., None]:
    def hasty(self: Lanes, lane: Lane, changes: Changes) -> None:
        with pytest.MonkeyPatch.context() as for_now:
            for_now.setattr(Lane, "first", lambda self, changes: None)
            isolate(self, lane, changes)

    return hasty


def a_suspect_waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lanes, "_isolate", lambda self, lane, changes: None)


def a_worker_forgets_outcomes_that_were_on_their_way(patch: pytest.MonkeyPatch) -> None:
    def forget(self: Holdings) -> None:
        self._sent.clear()

    patch.setattr(Holdings, "unsettle_all", forget)


def a_worker_does_not_say_what_it_has_started(patch: pytest.MonkeyPatch) -> None:
    def silent(self: worker_dispatcher.Dispatcher, started: list[Assignment]) -> None:
        for work in started:
            work.marked = True

    patch.setattr(worker_dispatcher.Dispatcher, "_mark", silent)


def the_task_of_a_child_that_died_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    bury = ProcessPool._bury

    async def careless(self: ProcessPool, child: ParentEnd) -> None:
        await child.process.wait()
        child.work = None
        await bury(self, child)

    patch.setattr(ProcessPool, "_bury", careless)


def a_client_sends_again_under_a_new_frame_id(patch: pytest.MonkeyPatch) -> None:
    request = AsyncClient._carry

    async def forgetful(
        self: AsyncClient, message: msgspec.Struct, reply: type[Any], *, is_repeatable: bool = True
    ) -> object:
        if not isinstance(message, messages.Enqueue):
            return await request(self, message, reply, is_repeatable=is_repeatable)
        while True:
            try:
                return await request(self, message, reply, is_repeatable=False)
            except ConnectionLost:
                message = msgspec.structs.replace(message, frame_id=self._ids.make())

    patch.setattr(AsyncClient, "_carry", forgetful)


def a_client_takes_a_lost_connection_for_an_answer(patch: pytest.MonkeyPatch) -> None:
    request = AsyncClient._carry

    async def trusting(
        self: AsyncClient, message: msgspec.Struct, reply: type[Any], *, is_repeatable: bool = True
    ) -> object:
        if not isinstance(message, messages.Enqueue):
            return await request(self, message, reply, is_repeatable=is_repeatable)
        try:
            return await request(self, message, reply, is_repeatable=False)
        except ConnectionLost:
            return messages.Enqueued([])

    patch.setattr(AsyncClient, "_carry", trusting)


class Planted(NamedTuple):
    """A bug, the check that shows it, and the faults and acts of an operator under which it does."""

    plant: Callable[[pytest.MonkeyPatch], None]
    faults: list[Fault] | None
    check: "Check"
    acts: list[Act] | None = None

    @property
    def name(self) -> str:
        return self.plant.__name__.replace("_", " ")


class Check(Enum):
    """What finds a bug, as docs/testing.md calls it; the value is what it says then."""

    ROWS = r"InvariantBroken: "
    ORDER = r"out of order|was left$"
    FATES = r"the broker does not know it|was handed out|ended as|should be|is gone|the broker keeps|more than once"
    EXPIRY = r"to be kept"
    TOTALS = r"were enqueued|counts .* completed, failed, dead"
    CALM = r"leases were lost|without an accident"
    DRAIN = r"TimeoutError"
    ERRORS = r"DuplicateTask|AssertionError|KeyError|EnqueueRefused"
    LEDGER = r"it was begun \d+ times"


PLANTED = (
    Planted(a_reply_leaves_before_its_commit, [Fault.CRASH_AT_COMMIT] * 14, Check.FATES),
    Planted(a_reply_leaves_before_its_sync, [Fault.STALL, Fault.CRASH] * 4, Check.FATES),
    Planted(a_frame_is_not_remembered, [Fault.DROP, Fault.CRASH_AT_COMMIT] * 4, Check.ERRORS),
    Planted(a_restart_begins_no_new_epoch, [Fault.CRASH] * 4, Check.ROWS),
    Planted(a_loss_counts_for_what_had_not_started, [Fault.WORKER] * 6, Check.LEDGER),
    Planted(a_floor_is_one_too_far, None, Check.ROWS),
    Planted(time_passes_before_the_heartbeats_are_read, [Fault.PAUSE] * 6, Check.CALM),
    Planted(a_settle_does_not_look_at_the_token, [Fault.PART] * 8, Check.ROWS),
    Planted(a_flow_is_served_to_its_end, [], Check.ORDER),
    Planted(a_cancelled_task_stays_in_its_line, [], Check.ROWS, [Act.CANCEL] * 8),
    Planted(a_cancel_takes_a_running_task_too, [], Check.ROWS, [Act.CANCEL] * 8),
    Planted(a_purge_spares_what_is_scheduled, [], Check.ROWS, [Act.PURGE] * 8),
    Planted(a_pause_is_said_before_it_is_durable, [Fault.CRASH] * 6, Check.FATES, [Act.PAUSE] * 12),
    Planted(a_pause_does_not_hold_for_what_was_about_to_go, [], Check.FATES, [Act.PAUSE] * 12),
    Planted(a_resume_wakes_nobody, [], Check.ORDER, [Act.PAUSE, Act.RESUME] * 6),
    Planted(a_redriven_task_keeps_its_attempts, [], Check.FATES, [Act.REDRIVE] * 6),
    Planted(a_redriven_task_keeps_its_generation, [], Check.FATES, [Act.REDRIVE] * 6),
    Planted(an_end_is_looked_at_too_early, [], Check.ROWS),
    Planted(an_end_is_never_forgotten, [], Check.EXPIRY),
    Planted(a_settle_is_told_before_it_is_durable, [Fault.CRASH] * 6, Check.FATES),
    Planted(a_heartbeat_is_not_heard, [], Check.FATES, []),
    Planted(a_settled_task_is_still_counted, [], Check.ROWS),
    Planted(a_completed_task_is_not_counted, [], Check.TOTALS),
    Planted(a_due_task_stays_on_the_timeline, [], Check.ROWS),
    Planted(a_new_task_goes_to_the_front, [], Check.ORDER),
    Planted(what_comes_back_wakes_nobody, [Fault.DROP] * 4, Check.ORDER),
    Planted(a_suspect_is_handed_out_among_others, [Fault.WORKER] * 4, Check.DRAIN),
    Planted(a_suspect_is_handed_out_out_of_turn, [Fault.WORKER] * 6, Check.ORDER),
    Planted(a_suspect_waits_for_ever, [Fault.WORKER] * 4, Check.ORDER),
    Planted(a_worker_forgets_outcomes_that_were_on_their_way, [Fault.DROP, Fault.CRASH] * 4, Check.DRAIN),
    Planted(a_worker_does_not_say_what_it_has_started, [], Check.DRAIN),
    Planted(the_task_of_a_child_that_died_is_forgotten, [Fault.CHILD] * 6, Check.DRAIN),
    Planted(a_client_sends_again_under_a_new_frame_id, [Fault.DROP, Fault.CRASH] * 4, Check.ERRORS),
    Planted(a_client_takes_a_lost_connection_for_an_answer, [Fault.DROP, Fault.CRASH] * 4, Check.FATES),
)
