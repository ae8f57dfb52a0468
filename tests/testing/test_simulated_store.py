"""The imagined disk: passes the suite, and loses after a crash what a disk may lose and nothing else."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tq.core.errors import StoreError
from tq.store.base import Commit
from tq.testing.simulated_store import Moment, SimulatedStore
from tq.testing.store_suite import StoreSuite

EVERYTHING = (b"", b"\xff", 1_000)


class Schedule:
    """Callbacks in the order of their time, run when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._waiting.append((self.now + delay_s, callback))

    def run_until(self, now: float) -> None:
        self.now = now
        for entry in sorted(self._waiting, key=lambda waiting: waiting[0]):
            if entry[0] <= now:
                self._waiting.remove(entry)
                entry[1]()


class TestSimulatedStore(StoreSuite):
    def open_store(self, directory: Path) -> SimulatedStore:
        def call_later(delay_s: float, callback: Callable[[], None]) -> None:
            asyncio.get_running_loop().call_later(delay_s, callback)

        return SimulatedStore(call_later)


def on_a_loop(test: Callable[[Schedule], None]) -> Callable[[], None]:
    """Run *test* inside a loop, with a schedule of its own."""

    async def main() -> None:
        test(Schedule())

    def run() -> None:
        asyncio.run(main())

    run.__name__ = test.__name__
    return run


def done(pending: object) -> bool:
    assert isinstance(pending, asyncio.Future)
    return pending.done()


@on_a_loop
def test_a_commit_ends_when_the_time_of_its_sync_has_passed(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later, sync_s=lambda: 3.0)

    pending = store.commit({b"a": b"1"})
    schedule.run_until(2.9)
    early = done(pending)
    schedule.run_until(3.0)

    assert not early
    assert done(pending)
    assert store.unsynced == 0


@on_a_loop
def test_a_commit_while_one_is_in_flight_is_a_bug(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    store.commit({b"a": b"1"})

    for sync in (True, False):
        with pytest.raises(AssertionError, match="in flight"):
            store.commit({b"a": b"2"}, sync=sync)


@on_a_loop
def test_a_crash_loses_what_was_not_synced_and_keeps_a_prefix_of_it(schedule: Schedule) -> None:
    for keep in range(4):
        store = SimulatedStore(schedule.call_later)
        store.commit({b"a": b"0", b"x": b"0"})
        schedule.run_until(schedule.now + 1)
        store.commit({b"a": b"1"}, sync=False)
        store.commit({b"b": b"2", b"x": None}, sync=False)
        store.commit({b"a": b"3"})

        again = store.crash(keep=keep)

        assert (
            again.scan(*EVERYTHING)
            == [
                [(b"a", b"0"), (b"x", b"0")],
                [(b"a", b"1"), (b"x", b"0")],
                [(b"a", b"1"), (b"b", b"2")],
                [(b"a", b"3"), (b"b", b"2")],
            ][keep]
        )


@on_a_loop
def test_a_crashed_store_answers_nobody_and_its_commit_never_ends(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    pending = store.commit({b"a": b"1"})

    again = store.crash()
    schedule.run_until(10)

    assert not done(pending)
    assert again.get(b"a") is None
    for use in (lambda: store.get(b"a"), lambda: store.scan(*EVERYTHING), lambda: store.commit({})):
        with pytest.raises(StoreError, match="crashed"):
            use()


@on_a_loop
def test_a_crash_cannot_keep_more_than_there_is(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    store.commit({b"a": b"1"}, sync=False)

    with pytest.raises(ValueError, match="1 batches are unsynced, cannot keep 2"):
        store.crash(keep=2)


@on_a_loop
def test_a_later_sync_makes_the_unsynced_before_it_durable(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    store.commit({b"a": b"1"}, sync=False)
    store.commit({b"b": b"2"}, sync=False)
    store.commit({b"c": b"3"}, sync=True)
    schedule.run_until(1)

    assert len(store.crash().scan(*EVERYTHING)) == 3


@on_a_loop
def test_a_stalled_disk_ends_no_commit_until_it_is_resumed(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later, sync_s=lambda: 1.0)
    pending = store.commit({b"a": b"1"})
    store.stall()
    schedule.run_until(100)
    stalled = not done(pending)

    store.resume()

    assert stalled
    assert done(pending)


@on_a_loop
def test_a_stall_that_ends_early_costs_nothing(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later, sync_s=lambda: 1.0)
    pending = store.commit({b"a": b"1"})
    store.stall()
    store.resume()
    early = done(pending)
    schedule.run_until(1)

    assert not early
    assert done(pending)


@on_a_loop
def test_a_failed_sync_breaks_the_store_and_what_it_wrote_may_be_lost(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    store.fail_next_sync(StoreError("the disk is on fire"))
    pending = store.commit({b"a": b"1"})
    schedule.run_until(1)

    assert isinstance(pending, asyncio.Future)
    assert isinstance(pending.exception(), StoreError)
    assert store.health().failure == "the disk is on fire"
    with pytest.raises(StoreError, match="no more commits"):
        store.commit({b"b": b"2"}, sync=False)
    assert store.crash().get(b"a") is None


@on_a_loop
def test_closing_makes_everything_durable_and_ends_the_commit_in_flight(schedule: Schedule) -> None:
    store = SimulatedStore(schedule.call_later)
    store.commit({b"a": b"1"}, sync=False)
    pending = store.commit({b"b": b"2"})

    store.close()

    assert isinstance(pending, asyncio.Future)
    assert pending.result() is Commit.COMMITTED
    assert len(store.crash().scan(*EVERYTHING)) == 2


@on_a_loop
def test_a_watcher_sees_each_boundary_of_a_commit(schedule: Schedule) -> None:
    seen: list[Moment] = []
    store = SimulatedStore(schedule.call_later, watch=seen.append)

    store.commit({b"a": b"1"})
    written = list(seen)
    schedule.run_until(1)
    store.commit({b"b": b"1"}, sync=False)

    assert written == [Moment.WRITTEN]
    assert seen == [Moment.WRITTEN, Moment.SYNCED, Moment.WRITTEN]


@on_a_loop
def test_a_watcher_may_crash_the_store_at_each_boundary(schedule: Schedule) -> None:
    reopened: list[SimulatedStore] = []
    for moment, kept in ((Moment.WRITTEN, None), (Moment.SYNCED, b"1")):
        stores: list[SimulatedStore] = []

        def crash_there(now: Moment, wanted: Moment = moment, stores: list[SimulatedStore] = stores) -> None:
            if now is wanted:
                reopened.append(stores[0].crash())

        stores.append(SimulatedStore(schedule.call_later, watch=crash_there))
        pending = stores[0].commit({b"a": b"1"})
        schedule.run_until(schedule.now + 1)

        assert not done(pending)
        assert reopened.pop().get(b"a") == kept
