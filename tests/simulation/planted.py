"""Bugs, each as small as a slip of the hand, that the simulator must find."""

import asyncio
from collections.abc import Callable, Mapping

from pytest import MonkeyPatch

from tq.broker.service import BrokerService
from tq.core.lease import first_token
from tq.core.task import TaskRecord
from tq.engine.changes import Changes
from tq.engine.commands import Enqueue, Tick
from tq.engine.dispatch import Lane
from tq.engine.enqueue import Enqueuer
from tq.engine.flows import Flow, QueuedTask
from tq.engine.leases import Leases
from tq.engine.rows import FRAME
from tq.engine.settle import Settler
from tq.engine.timeline import Timeline
from tq.store.base import Commit

Plant = Callable[[MonkeyPatch], None]


def a_reply_leaves_before_its_commit(patch: MonkeyPatch) -> None:
    let_out = BrokerService._let_out

    async def commit_one(self: BrokerService) -> bool:
        batch, store = self._batch, self._store

        class Hasty:
            def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> object:
                committing = store.commit(writes, sync=sync)
                let_out(service, batch)
                return committing

            def __getattr__(self, name: str) -> object:
                return getattr(store, name)

        service = self
        self._store = Hasty()  # type: ignore[assignment]
        try:
            return await original(self)
        finally:
            self._store = store

    original = BrokerService._commit_one
    said: list[int] = []

    def let_out_once(self: BrokerService, batch: object) -> None:
        if not batch.changes.writes:  # type: ignore[attr-defined]
            let_out(self, batch)  # type: ignore[arg-type]

    patch.setattr(BrokerService, "_commit_one", commit_one)
    patch.setattr(BrokerService, "_let_out", let_out_once)


def a_frame_is_not_remembered(patch: MonkeyPatch) -> None:
    apply = Enqueuer.apply

    def forgetful(self: Enqueuer, command: Enqueue, now: int, changes: Changes) -> list[tuple[int, str, str]]:
        refused = apply(self, command, now, changes)
        changes.writes.pop(FRAME + command.frame_id, None)
        return refused

    patch.setattr(Enqueuer, "apply", forgetful)


def a_restart_begins_no_new_epoch(patch: MonkeyPatch) -> None:
    def begin_epoch(self: Leases, epoch: int) -> None:
        self._next_token = first_token(1)

    patch.setattr(Leases, "begin_epoch", begin_epoch)


def a_loss_counts_for_what_had_not_started(patch: MonkeyPatch) -> None:
    lose = Settler.lose

    def harsh(self: Settler, tasks: list[QueuedTask], now: int, changes: Changes) -> None:
        for task in tasks:
            task.started_at = task.started_at or now
        lose(self, tasks, now, changes)

    patch.setattr(Settler, "lose", harsh)


def a_floor_is_one_too_far(patch: MonkeyPatch) -> None:
    write = Flow._write_floor

    def too_far(self: Flow, floor: int, changes: Changes) -> None:
        write(self, floor + 1, changes)

    patch.setattr(Flow, "_write_floor", too_far)


def time_passes_before_the_heartbeats_are_read(patch: MonkeyPatch) -> None:
    tick = BrokerService._tick
    pump = BrokerService._pump

    def hasty(self: BrokerService) -> None:
        patched = MonkeyPatch()
        patched.setattr(BrokerService, "_pump", lambda self: None)
        try:
            tick(self)
        finally:
            patched.undo()
            pump(self)

    patch.setattr(BrokerService, "_tick", hasty)


def a_settle_does_not_look_at_the_token(patch: MonkeyPatch) -> None:
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


def a_retry_comes_back_with_its_attempts_forgotten(patch: MonkeyPatch) -> None:
    add = Timeline.add

    def forgetful(self: Timeline, record: TaskRecord, *rest: object) -> object:
        record.attempts = 0
        return add(self, record, *rest)  # type: ignore[arg-type]

    patch.setattr(Timeline, "add", forgetful)


def the_least_urgent_goes_first(patch: MonkeyPatch) -> None:
    push = Lane._push

    def upside_down(self: Lane, flow: Flow, key: tuple[int, float, int]) -> None:
        push(self, flow, (255 - key[0], *key[1:]))

    patch.setattr(Lane, "_push", upside_down)


PLANTS: tuple[Plant, ...] = (
    a_reply_leaves_before_its_commit,
    a_frame_is_not_remembered,
    a_restart_begins_no_new_epoch,
    a_loss_counts_for_what_had_not_started,
    a_floor_is_one_too_far,
    time_passes_before_the_heartbeats_are_read,
    a_settle_does_not_look_at_the_token,
)
