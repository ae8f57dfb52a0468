"""Planted bugs: each fault, put into the engine on purpose, is caught by the model or by the invariants.

A net is only known to hold when something has been thrown into it.
"""

from collections.abc import Callable

import pytest

from tests.engine.harness import Driver
from tests.engine.test_dispatch import (
    test_tasks_that_came_back_while_their_queue_was_paused_are_first_again_in_their_order as what_came_back_is_first,
)
from tests.engine.test_flows import (
    test_heads_before_a_suspect_are_not_given_up_or_it_would_be_read_again as heads_before_a_suspect_are_not_given_up,
)
from tests.engine.test_model import check
from tests.engine.test_operations import (
    test_a_purge_removes_scheduled_rows_in_slices_and_leaves_those_of_others as a_purge_leaves_those_of_others,
)
from tq.core.lease import first_token
from tq.engine import enqueue, flows, leases, meta, operations, queues, retention, rows, settle, timeline, workers
from tq.engine.changes import Changes
from tq.engine.commands import Enqueue
from tq.engine.control import Control
from tq.engine.dispatch import Lane

EXAMPLES = 400

Plant = Callable[[pytest.MonkeyPatch], None]


def _token_reused_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases.Leases, "begin_epoch", lambda self, epoch: setattr(self, "_next_token", first_token(1)))


def _seq_reused_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(meta, "_SEQ_BLOCK", 0)
    real = meta.Meta.restore

    def restore(self: meta.Meta, reader: object, changes: Changes) -> int:
        clock = real(self, reader, changes)  # type: ignore[arg-type]
        self._seq = self._seq_reserved = max(0, self._seq - 3)
        return clock

    patch.setattr(meta.Meta, "restore", restore)


def _resend_doubles(patch: pytest.MonkeyPatch) -> None:
    real = enqueue.Enqueuer.apply

    def apply(self: enqueue.Enqueuer, command: Enqueue, now: int, changes: Changes) -> list[tuple[int, str, str]]:
        refused = real(self, command, now, changes)
        del changes.writes[rows.FRAME + command.frame_id]
        return refused

    patch.setattr(enqueue.Enqueuer, "apply", apply)


def _loss_counted_for_an_unstarted_task(patch: pytest.MonkeyPatch) -> None:
    real = settle.Settler.lose

    def lose(self: settle.Settler, tasks: list[flows.QueuedTask], now: int, changes: Changes) -> None:
        for task in tasks:
            task.started_at = task.started_at or now
        real(self, tasks, now, changes)

    patch.setattr(settle.Settler, "lose", lose)


def _floor_set_too_far(patch: pytest.MonkeyPatch) -> None:
    def raise_floor(self: flows.Flow, changes: Changes) -> None:
        if self._floor_written is not None and self.cursor - self._floor_written >= flows.FLOOR_STEP:
            self._write_floor(self.cursor, changes)

    patch.setattr(flows.Flow, "raise_floor", raise_floor)


def _floor_not_lowered(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.give_back

    def give_back(self: flows.Flow, task: flows.QueuedTask, changes: Changes) -> None:
        before = self._floor_written
        self._floor_written = 0
        real(self, task, changes)
        self._floor_written = before

    patch.setattr(flows.Flow, "give_back", give_back)


def _given_back_and_read_again(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.give_back

    def give_back(self: flows.Flow, task: flows.QueuedTask, changes: Changes) -> None:
        unread, self.unread = self.unread, False
        real(self, task, changes)
        self.unread = unread

    patch.setattr(flows.Flow, "give_back", give_back)


def _given_back_to_the_end_of_the_line(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.head

    def head(self: flows.Flow, changes: Changes) -> flows.QueuedTask | None:
        kept, self._returned = self._returned, []
        first = real(self, changes)
        self._returned = kept
        return first or real(self, changes)

    patch.setattr(flows.Flow, "head", head)


def _parked_heads_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.park

    def park(self: flows.Flow) -> None:
        cursor, unread = self.cursor, self.unread
        real(self)
        self.cursor, self.unread = cursor, unread

    patch.setattr(flows.Flow, "park", park)


def _parked_heads_kept_too(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.park

    def park(self: flows.Flow) -> None:
        heads = list(self._heads)
        real(self)
        self._budget.used += sum(task.charge for task in heads[len(self._heads) :])
        self._heads.extend(heads[len(self._heads) :])

    patch.setattr(flows.Flow, "park", park)


def _given_up_heads_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.give_up

    def give_up(self: flows.Flow) -> bool:
        cursor, unread = self.cursor, self.unread
        more = real(self)
        self.cursor, self.unread = cursor, unread
        return more

    patch.setattr(flows.Flow, "give_up", give_up)


def _given_up_heads_not_counted(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.give_up

    def give_up(self: flows.Flow) -> bool:
        used = self._budget.used
        more = real(self)
        self._budget.used = used
        return more

    patch.setattr(flows.Flow, "give_up", give_up)


def _what_is_aside_given_up_too(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow.give_up

    def give_up(self: flows.Flow) -> bool:
        aside, self.aside = self.aside, set()
        more = real(self)
        self.aside = aside
        return more

    patch.setattr(flows.Flow, "give_up", give_up)


def _priority_inverted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "_second", lambda self: None)


def _a_page_of_leased_rows_passes_for_the_end(patch: pytest.MonkeyPatch) -> None:
    real = flows.Flow._refill

    def refill(self: flows.Flow, changes: Changes) -> None:
        real(self, changes)
        self.unread = self.unread and bool(self._heads)

    patch.setattr(flows.Flow, "_refill", refill)


def _new_head_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "wake_front", Lane.wake)


def _settle_ignores_the_token(patch: pytest.MonkeyPatch) -> None:
    def find(self: leases.Leases, session: bytes, token: int, index: int) -> flows.QueuedTask | None:
        live = [lease for lease in self._by_token.values() if lease.session == session and index < len(lease.tasks)]
        return live[0].tasks[index] if live else None

    patch.setattr(leases.Leases, "find", find)


def _settle_ignores_the_session(patch: pytest.MonkeyPatch) -> None:
    def lose(self: settle.Settler, tasks: list[flows.QueuedTask], now: int, changes: Changes) -> None:
        """Leave it with its lease: the worker may come back after all."""

    patch.setattr(settle.Settler, "lose", lose)


def _started_mark_not_written(patch: pytest.MonkeyPatch) -> None:
    real = leases.Leases.write

    def write(self: leases.Leases, lease: leases.Lease, changes: Changes) -> None:
        real(self, lease, changes)
        key = rows.LEASE + rows.u64(lease.token)
        row = rows.decode_lease(changes.writes[key] or b"")
        changes.writes[key] = rows.encode_row(rows.LeaseRow(row.session, row.alone, row.keys, []))

    patch.setattr(leases.Leases, "write", write)


def _settle_has_no_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "_OUTCOME_BYTES", 0)
    patch.setattr(settle, "_QUEUE_BYTES", 0)
    patch.setattr(settle, "_CHARACTER_BYTES_MAX", 0)


def _settle_forgets_what_had_no_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "_after", lambda command, count: None)


def _counters_drift(patch: pytest.MonkeyPatch) -> None:
    real = queues.Queues.touch

    def touch(self: queues.Queues, queue: queues.Queue) -> None:
        if queue.row.dead < 2:
            real(self, queue)

    patch.setattr(queues.Queues, "touch", touch)


def _held_not_dropped(patch: pytest.MonkeyPatch) -> None:
    def drop(self: workers.WorkerSession, task: flows.QueuedTask) -> None:
        self.held_tasks -= 1

    patch.setattr(workers.WorkerSession, "drop", drop)


def _expiry_deletes_whatever_is_there(patch: pytest.MonkeyPatch) -> None:
    def forget(self: retention.Retention, task_id: bytes, now: int, changes: Changes) -> None:
        changes.writes[rows.TASK + task_id] = None

    patch.setattr(retention.Retention, "_forget", forget)


def _dead_letters_not_noted(patch: pytest.MonkeyPatch) -> None:
    real = retention.Retention.note

    def note(task_id: bytes, expires_at: int, changes: Changes) -> None:
        if (changes.writes.get(rows.TASK + task_id) or b"").startswith(rows.ENDED):
            real(task_id, expires_at, changes)

    patch.setattr(retention.Retention, "note", staticmethod(note))


def _due_before_its_time(patch: pytest.MonkeyPatch) -> None:
    real = timeline.Timeline.take_due

    def take_due(
        self: timeline.Timeline, now: int, limit: int, bytes_max: int, changes: Changes
    ) -> list[tuple[bytes, bytes]]:
        return real(self, now + 10_000, limit, bytes_max, changes)

    patch.setattr(timeline.Timeline, "take_due", take_due)


def _purge_takes_what_runs(patch: pytest.MonkeyPatch) -> None:
    real = operations.Operations._purge_slice

    def purge_slice(
        self: operations.Operations,
        operation: rows.OperationRow,
        slice_rows: list[tuple[bytes, bytes]],
        now: int,
        changes: Changes,
    ) -> None:
        queue = self._queues.numbered(operation.queue)
        running, queue.running = queue.running, {}
        try:
            real(self, operation, slice_rows, now, changes)
        finally:
            queue.running = running

    patch.setattr(operations.Operations, "_purge_slice", purge_slice)


def _purge_keeps_the_generation(patch: pytest.MonkeyPatch) -> None:
    real = operations.Operations.purge

    def purge(self: operations.Operations, queue: queues.Queue, changes: Changes) -> int:
        dropped = real(self, queue, changes)
        queue.row.generation -= 1
        return dropped

    patch.setattr(operations.Operations, "purge", purge)


def _purge_forgets_what_is_scheduled(patch: pytest.MonkeyPatch) -> None:
    real = operations.Operations._begin

    def begin(self: operations.Operations, row: rows.OperationRow, changes: Changes) -> bytes:
        return b"" if row.cursor.startswith(rows.DUE) else real(self, row, changes)

    patch.setattr(operations.Operations, "_begin", begin)


def _purge_takes_the_scheduled_of_all(patch: pytest.MonkeyPatch) -> None:
    # As if all were of a generation that was purged.
    def split(value: bytes) -> tuple[int, int, bytes]:
        number, _, encoded = rows.split_scheduled(value)
        return number, -1, encoded

    patch.setattr(operations, "split_scheduled", split)


def _an_end_told_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    real = settle.Settler._bury

    def bury(self: settle.Settler, *arguments: object) -> None:
        changes = arguments[-1]
        assert isinstance(changes, Changes)
        promised = changes.promised
        real(self, *arguments)  # type: ignore[arg-type]
        changes.promised = promised

    patch.setattr(settle.Settler, "_bury", bury)


def _suspects_beside_others(patch: pytest.MonkeyPatch) -> None:
    real = leases.Leases.grant

    def grant(
        self: leases.Leases, session: bytes, alone: bool, tasks: list[flows.QueuedTask], changes: Changes
    ) -> leases.Lease:
        return real(self, session, False, tasks, changes)

    patch.setattr(leases.Leases, "grant", grant)


def _cancelled_head_stays(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(flows.Flow, "drop", lambda self, seq: self.aside.discard(seq))


def _paused_queue_goes_on(patch: pytest.MonkeyPatch) -> None:
    real = Control.pause

    def pause(self: Control, command: object, now: int, changes: Changes) -> int:
        answer = real(self, command, now, changes)  # type: ignore[arg-type]
        for queue in self._queues.all():
            queue.row.paused = False
        return answer

    patch.setattr(Control, "pause", pause)


PLANTED: list[Plant] = [
    _token_reused_after_a_restart,
    _seq_reused_after_a_restart,
    _resend_doubles,
    _loss_counted_for_an_unstarted_task,
    _floor_set_too_far,
    _floor_not_lowered,
    _given_back_and_read_again,
    _given_back_to_the_end_of_the_line,
    _parked_heads_forgotten,
    _parked_heads_kept_too,
    _given_up_heads_forgotten,
    _given_up_heads_not_counted,
    _priority_inverted,
    _a_page_of_leased_rows_passes_for_the_end,
    _settle_ignores_the_token,
    _settle_ignores_the_session,
    _started_mark_not_written,
    _settle_has_no_bound,
    _settle_forgets_what_had_no_room,
    _counters_drift,
    _held_not_dropped,
    _expiry_deletes_whatever_is_there,
    _dead_letters_not_noted,
    _due_before_its_time,
    _purge_takes_what_runs,
    _purge_keeps_the_generation,
    _purge_forgets_what_is_scheduled,
    _an_end_told_before_it_is_durable,
    _suspects_beside_others,
    _cancelled_head_stays,
    _paused_queue_goes_on,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_the_model_catches(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        # It ends at the first that catches the bug; which one that is depends on what else hypothesis has seen loaded.
        check(10 * EXAMPLES, shrinks=False)


def test_a_story_catches_what_the_model_meets_too_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    _purge_takes_the_scheduled_of_all(monkeypatch)

    with pytest.raises(AssertionError):
        a_purge_leaves_those_of_others(monkeypatch)


def test_a_story_catches_a_new_head_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    _new_head_forgotten(monkeypatch)

    with pytest.raises(AssertionError):
        what_came_back_is_first()


def test_a_story_catches_heads_given_up_before_a_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    _what_is_aside_given_up_too(monkeypatch)

    with pytest.raises(AssertionError):
        heads_before_a_suspect_are_not_given_up()


def test_nothing_is_caught_where_nothing_is_planted() -> None:
    check(5, shrinks=False)
    Driver().enqueue()
