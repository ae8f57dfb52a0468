"""Bounds: whatever is asked for, and over whatever tasks, no command makes a larger change than a log may hold."""

from collections.abc import Callable
from random import Random

import pytest

from tests.engine.harness import A, Driver, bytes_of
from tq.core.limits import CHANGE_BYTES_MAX
from tq.core.outcome import FailedAttempt, TaskFailure
from tq.core.retry import RetryPolicy
from tq.engine import commands as c
from tq.engine.operations import SLICE_BYTES

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
    driver.do(c.Beat(worker, driver.now, None))
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
    driver.do(c.Leave(worker))
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
    driver.do(c.Beat(worker, driver.now, None))
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
