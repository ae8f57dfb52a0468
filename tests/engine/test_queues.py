"""Queues: what exists, under which number, and the counters of it."""

from typing import Any

import pytest

from tests.engine.harness import Driver, a_spec
from tq.core.errors import BrokerError, InvalidArgument, QueueNotFound, TooManyQueues
from tq.engine import commands as c, rows as r
from tq.engine.engine import EngineSettings


def test_a_queue_exists_from_its_first_task_or_its_first_worker_on() -> None:
    driver = Driver()
    driver.enqueue(queue="a")
    driver.worker(queues=("b",))

    assert [view.name for view in driver.do(c.ListQueues(None))[0]] == ["a", "b"]
    driver.restart()
    assert [view.name for view in driver.do(c.ListQueues(None))[0]] == ["a", "b"]


@pytest.mark.parametrize(
    "command",
    [
        c.ListQueues("no"),
        c.PauseQueue("no", paused=True),
        c.PurgeQueue("no"),
        c.RedriveDead("no", []),
        c.ForgetDead("no", []),
        c.ListTasks("ready", "no", 1, None),
    ],
)
def test_a_queue_that_does_not_exist_is_not_made_by_asking_for_it(command: c.Command[object]) -> None:
    driver = Driver()

    error = driver.refused(command, QueueNotFound)

    assert "no queue 'no': it exists from its first task or worker on" in str(error)


@pytest.mark.parametrize(
    ("queues", "kind"),
    [
        ([("good", 1), ("no good", 1)], InvalidArgument),
        ([("one", 1), ("two", 1), ("three", 1)], TooManyQueues),
    ],
)
def test_a_refused_subscription_makes_no_queue(queues: list[tuple[str, int]], kind: type[BrokerError]) -> None:
    driver = Driver(settings=EngineSettings(queues_max=2))
    worker = driver.worker(queues=())

    driver.refused(c.Subscribe(worker, queues, weighted=False), kind)


def test_a_queue_named_twice_is_subscribed_once() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker(queues=("q", "q"))

    assert len(driver.take(worker)) == 2
    assert driver.queue().workers == 1


def test_the_counters_tell_where_everything_is() -> None:
    driver = Driver()
    driver.enqueue(10)
    worker = driver.worker(window=6)
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.complete(worker, held[0])
    driver.fail(worker, held[1], retry_after_ms=1_000)
    driver.fail(worker, held[2], reject=True)
    driver.release(worker, held[3])
    driver.do(c.Cancel([held[3].id]))

    view = driver.queue()

    assert (view.ready, view.running, view.scheduled, view.dead) == (4, 2, 1, 1)
    assert (view.enqueued_total, view.completed_total, view.failed_total) == (10, 1, 2)
    assert (view.dead_total, view.cancelled_total, view.purged_total, view.lost_total) == (1, 1, 0, 0)


def test_the_counters_survive_a_restart() -> None:
    driver = Driver()
    driver.enqueue(10)
    worker = driver.worker(window=6)
    held = driver.take(worker)
    driver.complete(worker, *held[:2])
    before = driver.queue()

    driver.restart()

    after = driver.queue()
    assert (after.ready, after.running, after.completed_total) == (before.ready, before.running, before.completed_total)


def test_a_task_name_is_numbered_once_in_its_queue() -> None:
    driver = Driver()
    for name in ("t", "u", "t"):
        driver.enqueue(name=name)
    driver.restart()
    driver.enqueue(name="v")
    driver.enqueue(name="u")

    assert driver.rows.of(r.NAMES) == {
        r.names_key(1, number): r.encode_names([name]) for number, name in enumerate(["t", "u", "v"])
    }


def test_a_batch_writes_the_row_of_a_queue_once_and_only_if_touched() -> None:
    driver = Driver()
    driver.enqueue(queue="a")
    changes = driver.engine.changes()
    driver.engine.apply(driver.frame(2), driver.now, changes)
    driver.engine.apply(driver.frame(3), driver.now, changes)
    driver.finish(changes)

    assert [key for key in changes.writes if key[:1] == r.QUEUE] == [r.queue_key(r.QUEUE, 2)]
    assert driver.queue().enqueued_total == 5


def test_reading_changes_nothing() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()

    commands: list[c.Command[Any]] = [
        c.ListQueues(None),
        c.ListQueues("q"),
        c.Get([task_id]),
        c.ListWorkers(),
        c.Wait(1, [task_id]),
        c.Unwait(1, None),
        c.ListTasks("ready", None, 10, None),
    ]
    for command in commands:
        driver.do(command)
        assert driver.last.writes == {}


def test_a_new_task_name_costs_one_row_however_many_there_are() -> None:
    driver = Driver(checked=False)
    for start in range(0, 9_000, 500):
        specs = [a_spec(name="n" * 200 + str(start + number)) for number in range(500)]
        driver.do(c.Enqueue(driver.new_id(), specs, []))

    (task_id,) = driver.enqueue(name="one more")

    assert sum(len(key) + len(value or b"") for key, value in driver.last.writes.items()) < 1_000
    driver.restart()
    worker = driver.worker(tasks=("one more",))
    assert [held.id for held in driver.take(worker)] == [task_id]


def test_names_of_the_first_format_are_read_and_numbered_on() -> None:
    driver = Driver()
    first = driver.enqueue(name="t") + driver.enqueue(name="u")
    rows = driver.rows.rows
    for number in range(2):
        del rows[r.names_key(1, number)]
    rows[r.queue_key(r.NAMES, 1)] = r.encode_names(["t", "u"])

    driver.restart()
    (third,) = driver.enqueue(name="v")
    driver.restart()

    worker = driver.worker(tasks=("t", "u", "v"))
    assert [held.id for held in driver.take(worker)] == [*first, third]
