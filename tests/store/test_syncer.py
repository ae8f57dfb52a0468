"""The thread that waits for the disk: who is answered when, and what a failure ends."""

import asyncio
from threading import Event, get_ident

import pytest

from tq.core.errors import StoreError
from tq.core.times import DurationMs
from tq.store.base import Commit
from tq.store.syncer import DemandSyncer, IntervalSyncer

# Nothing here waits so long unless it has failed.
PATIENCE_S = 10.0


def nothing() -> None:
    pass


class Disk:
    """A disk whose sync can be held and made to fail, and which remembers who called it."""

    def __init__(self) -> None:
        self.may_sync = Event()
        self.may_sync.set()
        self.synced = Event()
        self.failure: StoreError | None = None
        self.threads: list[int] = []

    def sync(self) -> None:
        assert self.may_sync.wait(PATIENCE_S)
        self.threads.append(get_ident())
        if self.failure is not None:
            raise self.failure
        self.synced.set()


def test_a_request_ends_after_one_sync_in_another_thread() -> None:
    disk = Disk()
    syncer = DemandSyncer(disk.sync, nothing)

    async def main() -> list[Commit]:
        return [await syncer.request(), await syncer.request()]

    ended = asyncio.run(main())

    assert ended == [Commit.COMMITTED, Commit.COMMITTED]
    assert len(disk.threads) == 2
    assert get_ident() not in disk.threads
    syncer.close()


def test_a_request_is_pending_while_the_disk_is_busy_and_the_loop_runs_on() -> None:
    disk = Disk()
    disk.may_sync.clear()
    syncer = DemandSyncer(disk.sync, nothing)

    async def main() -> bool:
        pending = syncer.request()
        for _ in range(10):
            await asyncio.sleep(0)
        was_pending = not pending.done()
        disk.may_sync.set()
        await pending
        return was_pending

    assert asyncio.run(main())
    syncer.close()


def test_a_failure_is_raised_where_it_was_asked_for_and_nothing_is_done_afterwards() -> None:
    disk = Disk()
    disk.failure = StoreError("the disk is on fire")
    noted: list[str] = []
    syncer = DemandSyncer(disk.sync, lambda: noted.append("synced"))

    async def main() -> None:
        await syncer.request()

    with pytest.raises(StoreError, match="on fire"):
        asyncio.run(main())
    syncer.close()
    assert not noted


def test_closing_answers_what_was_asked_and_does_what_follows() -> None:
    disk = Disk()
    noted: list[str] = []
    syncer = DemandSyncer(disk.sync, lambda: noted.append("synced"))

    async def main() -> Commit:
        pending = syncer.request()
        syncer.close()
        return await pending

    assert asyncio.run(main()) is Commit.COMMITTED
    assert noted == ["synced"]


def test_whoever_is_cancelled_or_gone_does_not_hurt_the_next() -> None:
    disk = Disk()
    disk.may_sync.clear()
    syncer = DemandSyncer(disk.sync, nothing)

    async def give_up() -> None:
        syncer.request().cancel()
        syncer.request()

    async def ask() -> Commit:
        return await syncer.request()

    asyncio.run(give_up())
    disk.may_sync.set()

    assert asyncio.run(ask()) is Commit.COMMITTED
    syncer.close()


def test_an_interval_syncs_what_was_noted_and_then_rests() -> None:
    disk = Disk()
    noted = Event()
    syncer = IntervalSyncer(disk.sync, noted.set, DurationMs(1))

    syncer.note()
    syncer.note()
    assert disk.synced.wait(PATIENCE_S)
    assert noted.wait(PATIENCE_S)
    syncer.close()

    assert len(disk.threads) == 1


def test_what_is_noted_during_a_sync_is_synced_again() -> None:
    disk = Disk()
    disk.may_sync.clear()
    started = Event()

    def sync() -> None:
        started.set()
        disk.sync()

    syncer = IntervalSyncer(sync, nothing, DurationMs(1))
    syncer.note()
    assert started.wait(PATIENCE_S)

    syncer.note()
    started.clear()
    disk.may_sync.set()

    assert started.wait(PATIENCE_S)
    syncer.close()


def test_closing_just_before_the_note_is_cleared_ends_the_thread() -> None:
    disk = Disk()
    syncer = IntervalSyncer(disk.sync, nothing, DurationMs(0))
    clear = syncer._written.clear

    def close_and_clear() -> None:
        syncer._closing.set()
        syncer._written.set()
        clear()

    syncer._written.clear = close_and_clear  # type: ignore[method-assign]
    syncer.note()
    syncer._thread.join(PATIENCE_S)

    assert not syncer._thread.is_alive()


def test_an_interval_ends_with_the_first_failure() -> None:
    disk = Disk()
    disk.failure = StoreError("the disk is on fire")
    noted: list[str] = []
    syncer = IntervalSyncer(disk.sync, lambda: noted.append("synced"), DurationMs(0))

    syncer.note()
    syncer._thread.join(PATIENCE_S)
    syncer.note()
    syncer.close()

    assert len(disk.threads) == 1
    assert not noted
