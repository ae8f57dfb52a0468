"""Bounds: whatever is asked for, and over whatever tasks, no command makes a larger change than a log may hold."""

from collections.abc import Callable
from random import Random

import pytest

from tests.engine.harness import A, Driver, Held, bytes_of
from tq.core.limits import CHANGE_BYTES_MAX
from tq.core.outcome import FailedAttempt, TaskFailure
from tq.core.retry import RetryPolicy
from tq.engine import commands as c
from tq.engine.operations import SLICE_BYTES
from tq.engine.workers import WINDOW_TASKS_MAX

LONG = TaskFailure("E" * 255, "m" * 2_048, "\N{SNOWMAN}" * 16_384)
WAIT = RetryPolicy(backoff_ms=1_000, backoff_max_ms=1_000)
# The worst that is stored of a task: its payload, its spec, the texts of its failure.
SIZES = {"small": 0, "slices": 3_000, "large": SLICE_BYTES - 70_000}


class Measured(Driver):
    """A driver that measures what each command writes, before the batch is sealed."""

    def do(self, command: c.Command[A], *, dispatch: bool = True) -> A:
        changes = self.engine.changes()
        answer = self.engine.apply(command, self.now, changes)
        size = bytes_of(changes.writes) + sum(16 * len(ids) + 17 for ids in changes.expiring.values())
        assert size <= CHANGE_BYTES_MAX, f"{type(command).__name__} writes {size} bytes"
        self.finish(changes, dispatch=dispatch)
        return answer


def many(driver: Driver, size: int, **fields: object) -> tuple[bytes, list[bytes]]:
    """Have a worker hold 1,000 tasks."""
    worker = driver.worker(window=0, tasks=("t",), queues=("q",))
    ids = driver.enqueue(1_000, payload=bytes(size), dispatch=False, **fields)
    driver.do(c.SetWindow(worker, 1_000, 1 << 30))
    return worker, ids


def fail_all(driver: Driver, worker: bytes, *, reject: bool) -> None:
    failed = [FailedAttempt(*held.place, LONG, None, reject) for held in driver.take(worker)]
    driver.settle(c.Settle(worker, [], failed))


def retries_come_due(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    fail_all(driver, worker, reject=False)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.tick(2_000)
    assert driver.queue().ready == 1_000


def scheduled_are_purged(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    fail_all(driver, worker, reject=False)
    driver.do(c.PurgeQueue("q"))
    driver.tick()
    assert not driver.queue().purging


def dead_are_redriven(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    fail_all(driver, worker, reject=True)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.do(c.RedriveDead(None, []))
    driver.tick()
    assert driver.queue().ready == 1_000


def dead_are_forgotten(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    fail_all(driver, worker, reject=True)
    driver.now += driver.settings.dead_retention_ms + 2_000
    driver.do(c.Beat(worker, driver.now))
    driver.tick()
    assert driver.queue().dead == 0


def started_are_lost(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    driver.start(worker, *driver.take(worker))
    driver.die(worker)
    assert driver.queue().lost_total == 1_000


def all_is_given_back(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.start(worker, *held[::2])
    driver.release(worker, *held[1::2])
    driver.leave(worker)
    assert driver.queue().ready == 1_000


def waiting_are_cancelled(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.release(worker, *held)
    for start in range(0, 1_000, 250):
        assert driver.do(c.Cancel(ids[start : start + 250])) == []


def results_are_kept_and_expire(driver: Driver, worker: bytes, ids: list[bytes]) -> None:
    driver.complete(worker, *driver.take(worker), result=bytes(Random(1).randint(0, 5_000)))
    driver.now += 4_000_000
    driver.do(c.Beat(worker, driver.now))
    driver.tick()
    assert driver.get(ids[0]) is None


STORIES = [
    retries_come_due, scheduled_are_purged, dead_are_redriven, dead_are_forgotten, started_are_lost,
    all_is_given_back, waiting_are_cancelled, results_are_kept_and_expire,
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_no_command_makes_a_larger_change_than_may_be(
    story: Callable[[Driver, bytes, list[bytes]], None], size: str
) -> None:
    driver = Measured(checked=False)
    worker, ids = many(driver, SIZES[size], retry=WAIT)
    assert driver.queue().running == 1_000

    story(driver, worker, ids)


def full_window(driver: Driver) -> tuple[bytes, list[Held]]:
    """Have a worker hold as many small tasks as one may."""
    worker = driver.worker(window=0)
    driver.enqueue(WINDOW_TASKS_MAX, dispatch=False)
    driver.do(c.SetWindow(worker, WINDOW_TASKS_MAX, 1 << 30))
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    assert len(held) == WINDOW_TASKS_MAX
    return worker, held


def leaves(driver: Driver, worker: bytes, held: list[Held]) -> None:
    driver.leave(worker)
    assert driver.do(c.ListWorkers())[0] == []


def releases_in_any_order(driver: Driver, worker: bytes, held: list[Held]) -> None:
    driver.release(worker, *sorted(held, key=lambda each: each.index))


def comes_back_with_nothing(driver: Driver, worker: bytes, held: list[Held]) -> None:
    while driver.connect("w", ("t",), []).rest:
        pass


def comes_back_with_half(driver: Driver, worker: bytes, held: list[Held]) -> None:
    claimed = [(each.token, [each.index], [each.index]) for each in held[::2]]
    while driver.connect("w", ("t",), claimed).rest:
        pass
    assert driver.engine._leases.started_by(worker) == len(claimed)
    driver.start(worker, *held[::2])
    driver.release(worker, *held[::2])


def stalls(driver: Driver, worker: bytes, held: list[Held]) -> None:
    # One task of each delivery is started: every row is written again.
    driver.start(worker, *[each for each in held if not each.index])
    for _ in range(4):
        driver.now += driver.settings.lease_ms // 2
        driver.beat(worker, turns=False)
        driver.tick()
    driver.leave(worker)


@pytest.mark.parametrize("purged", [False, True], ids=["waiting", "purged"])
@pytest.mark.parametrize(
    "story", [leaves, releases_in_any_order, comes_back_with_nothing, comes_back_with_half, stalls],
    ids=lambda story: story.__name__,
)  # fmt: skip
def test_what_is_held_of_a_full_window_goes_back_in_changes_that_may_be(
    story: Callable[[Driver, bytes, list[Held]], None], purged: bool
) -> None:
    driver = Measured(checked=False)
    worker, held = full_window(driver)
    if purged:
        driver.do(c.PurgeQueue("q"))

    story(driver, worker, held)

    assert driver.queue().running == 0
    assert driver.queue().ready == (0 if purged else WINDOW_TASKS_MAX)


def test_the_marks_of_a_full_window_are_made_in_changes_that_may_be() -> None:
    driver = Measured(checked=False)
    worker, held = full_window(driver)

    driver.start(worker, *sorted(held, key=lambda each: each.index))

    assert all(task.started_at for task in driver.engine._leases.held_by(worker))


def test_tasks_that_are_over_their_time_in_many_deliveries_come_back_in_changes_that_may_be() -> None:
    driver = Measured(checked=False)
    worker, held = full_window(driver)
    driver.do(c.Beat(worker, 1))
    driver.start(worker, *[each for each in held if not each.index])
    timeout_ms = held[0].record.spec.timeout_ms
    driver.now += timeout_ms + driver.settings.grace_ms
    driver.do(c.Beat(worker, 2))

    driver.tick()

    assert driver.queue().running == 0
