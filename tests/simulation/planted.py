"""Bugs, each as small as a slip of the hand, that the simulator must find."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import pytest

from tq.broker.batch import Batch
from tq.broker.commit import GroupCommit
from tq.broker.outlet import Outlet
from tq.broker.service import BrokerService
from tq.core.lease import first_token
from tq.engine.changes import Changes
from tq.engine.commands import Enqueue
from tq.engine.dispatch import Lane
from tq.engine.enqueue import Enqueuer
from tq.engine.flows import Flow, QueuedTask
from tq.engine.leases import Leases
from tq.engine.rows import FRAME
from tq.engine.settle import Settler
from tq.store.base import Commit
from tq.testing.simulator import Fault


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
            for_now.setattr(BrokerService, "_serve_all", lambda self, now: None)
            for_now.setattr(BrokerService, "_turn", lambda self: None)
            tick(self)
        self._turn()

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


class Planted(NamedTuple):
    """A bug, and the faults under which it shows."""

    plant: Callable[[pytest.MonkeyPatch], None]
    faults: list[Fault] | None


PLANTED = (
    Planted(a_reply_leaves_before_its_commit, [Fault.CRASH_AT_COMMIT] * 14),
    Planted(a_reply_leaves_before_its_sync, [Fault.STALL, Fault.CRASH] * 4),
    Planted(a_frame_is_not_remembered, [Fault.DROP, Fault.CRASH_AT_COMMIT] * 4),
    Planted(a_restart_begins_no_new_epoch, None),
    Planted(a_loss_counts_for_what_had_not_started, [Fault.WORKER] * 6),
    Planted(a_floor_is_one_too_far, None),
    Planted(time_passes_before_the_heartbeats_are_read, [Fault.PAUSE] * 6),
    Planted(a_settle_does_not_look_at_the_token, [Fault.PART, Fault.CRASH] * 3),
    Planted(a_flow_is_served_to_its_end, []),
)
