"""kill -9 of broker, workers and both, at random moments under load; and a worker that comes back from the dead.

What was acknowledged ends once, as it was meant to; nothing is enqueued twice; what a
stale worker says changes nothing.
"""

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import Broker, Fleet, Program, WorkerProcess, until
from tq import App, Task, TaskQueueError
from tq.app.declared import DeclaredTask
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.task import TaskView

CHAOS_S = 4.0
LEASE = {"lease_ms": 1_500, "heartbeat_ms": 300}
KINDS = ["done", "done", "done", "done", "flaky", "failing", "rejected"]
BULK = 60
CROWD = 10


def _alone(app: App, task: Task) -> list[TaskId]:
    return [app.client.enqueue(task)]


class Producer:
    """Enqueues in three manners at once until it is stopped, and knows what was acknowledged."""

    def __init__(self, url: str, task: DeclaredTask[[str, str, float], object, str], seed: int) -> None:
        self.acknowledged: dict[str, TaskId] = {}
        self.doubtful: set[str] = set()
        self.kinds: dict[str, str] = {}
        self._url = url
        self._task = task
        self._draw = random.Random(seed)
        self._numbers = count()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,)) for work in (self._bulk, self._single, self._crowd)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive()
        if self._failures:
            raise self._failures[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            self._failures.append(error)

    def _tasks(self, number: int) -> tuple[list[str], list[Task]]:
        with self._lock:
            keys = [f"k{next(self._numbers)}" for _ in range(number)]
            for key in keys:
                self.kinds[key] = self._draw.choice(KINDS)
            seconds = self._draw.choice([0.0, 0.002, 0.01])
        return keys, [self._task._task((key, self.kinds[key], seconds), {}) for key in keys]

    def _bulk(self) -> None:
        with App(self._url) as app:
            while not self._over.is_set():
                keys, tasks = self._tasks(BULK)
                self._note(keys, partial(app.client.enqueue_many, tasks))
                time.sleep(0.02)

    def _single(self) -> None:
        with App(self._url) as app:
            while not self._over.is_set():
                keys, (task,) = self._tasks(1)
                self._note(keys, partial(_alone, app, task))

    def _crowd(self) -> None:
        async def run() -> None:
            async with App(self._url) as app:
                while not self._over.is_set():
                    await asyncio.gather(*[self._one_of_crowd(app) for _ in range(CROWD)])

        asyncio.run(run())

    async def _one_of_crowd(self, app: App) -> None:
        keys, (task,) = self._tasks(1)
        try:
            handle = await app.aenqueue(task)
        except TaskQueueError:
            self.doubtful.update(keys)
        else:
            self.acknowledged[keys[0]] = handle.task_id

    def _note(self, keys: list[str], enqueue: Callable[[], list[TaskId]]) -> None:
        try:
            ids = enqueue()
        except TaskQueueError:
            self.doubtful.update(keys)
        else:
            self.acknowledged.update(zip(keys, ids, strict=True))


def wreak(draw: random.Random, broker: Broker, workers: list[WorkerProcess]) -> list[str]:
    """Kill and start again, for a while; return what was done."""
    deeds: list[str] = []
    until_s = time.monotonic() + CHAOS_S
    while time.monotonic() < until_s:
        time.sleep(draw.uniform(0.1, 0.7))
        match draw.choice(["broker", "worker", "both", "all"]):
            case "broker":
                victims: list[Program] = [broker]
            case "worker":
                victims = [draw.choice(workers)]
            case "both":
                victims = [broker, draw.choice(workers)]
            case _:
                victims = [broker, *workers]
        draw.shuffle(victims)
        for victim in victims:
            victim.kill()
        time.sleep(draw.uniform(0, 0.3))
        if broker in victims:
            broker.start()
        for victim in victims:
            if isinstance(victim, WorkerProcess):
                victim.launch()
        deeds.append("+".join(victim.name for victim in victims))
    return deeds


@pytest.mark.parametrize(
    ("pool", "seed"), [("async", 1), ("async", 2), ("async", 3), ("thread", 4), ("process", 5), ("process", 6)]
)
def test_what_was_acknowledged_ends_once_whatever_is_killed(fleet: Fleet, pool: str, seed: int) -> None:
    broker = fleet.broker(**LEASE)
    workers = [fleet.worker(pool=pool, name=f"w{number}", drain_ms=1_000) for number in range(2)]
    work: DeclaredTask[..., Any, str] = handlers.work if pool == "async" else handlers.work_plain
    task = fleet.bind(work)
    producer = Producer(fleet.url, task, seed)

    producer.start()
    deeds = wreak(random.Random(seed), broker, workers)
    producer.stop()
    until(fleet.is_drained, 60, f"drained after {deeds}")

    assert len(deeds) >= 3
    assert len(producer.acknowledged) > 200, deeds
    ids_of = executed(fleet)
    check_each_ended_as_meant(fleet, producer, ids_of)
    check_counters(fleet, producer, ids_of)
    for worker in workers:
        assert worker.is_alive
        assert worker.terminate() == 0
    assert broker.terminate() == 0


def executed(fleet: Fleet) -> dict[str, set[str]]:
    """Return the ids of the tasks that have run, by their keys."""
    ids: dict[str, set[str]] = defaultdict(set)
    for _, key, task_id, *_ in fleet.journal:
        ids[key].add(task_id)
    return ids


def check_each_ended_as_meant(fleet: Fleet, producer: Producer, ids_of: dict[str, set[str]]) -> None:
    acknowledged = producer.acknowledged
    views = fleet.app.client.get(acknowledged.values())
    for (key, task_id), view in zip(acknowledged.items(), views, strict=True):
        assert view is not None, f"{key} was acknowledged and is unknown"
        assert ids_of[key] == {format_id(task_id)}, f"{key} ran as {ids_of[key]}, acknowledged as {format_id(task_id)}"
        check_ended(key, producer.kinds[key], view)
    # What nobody answered for is there once, or not at all.
    assert all(len(ids_of[key]) <= 1 for key in producer.doubtful)


def check_ended(key: str, kind: str, view: TaskView) -> None:
    match kind:
        case "failing":
            assert (view.state, view.reason, view.attempts) == (TaskState.DEAD, DeadReason.ATTEMPTS.value, 2), (
                key,
                view,
            )
        case "rejected":
            assert (view.state, view.reason) == (TaskState.DEAD, DeadReason.REJECTED.value), (key, view)
        case _:
            assert view.state is TaskState.COMPLETED, (key, view)
            assert view.result is not None
            assert f"result of {key}".encode() in view.result
            assert view.attempts == (1 if kind == "flaky" else 0), (key, view)


def check_counters(fleet: Fleet, producer: Producer, ids_of: dict[str, set[str]]) -> None:
    queue = fleet.queue()
    tasks = {key for key, ids in ids_of.items() if ids}
    assert tasks - producer.acknowledged.keys() <= producer.doubtful
    assert queue.enqueued_total == len(tasks)
    assert queue.enqueued_total == queue.completed_total + queue.dead_total
    assert (queue.ready, queue.running, queue.scheduled) == (0, 0, 0)
    assert (queue.cancelled_total, queue.purged_total) == (0, 0)
    assert queue.dead == queue.dead_total == kinds(producer, tasks, ["failing", "rejected"])
    # Each failure that counted was one: two of each failing task, one of each flaky or rejected one.
    attempts = 2 * kinds(producer, tasks, ["failing"]) + kinds(producer, tasks, ["flaky", "rejected"])
    assert queue.failed_total == attempts


def kinds(producer: Producer, keys: Iterable[str], wanted: list[str]) -> int:
    return sum(producer.kinds[key] in wanted for key in keys)


@pytest.mark.parametrize("pool", ["async", "thread", "process"])
def test_the_outcome_of_a_worker_that_was_given_up_is_refused(fleet: Fleet, pool: str) -> None:
    fleet.broker(**LEASE)
    stale = fleet.worker(name="stale", pool=pool)
    gated: DeclaredTask[..., Any, str] = handlers.gated if pool == "async" else handlers.gated_plain
    handle = fleet.bind(gated).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") == 1 and handle.status().started)

    stale.suspend()
    fresh = fleet.worker(name="fresh", pool=pool)
    until(lambda: fleet.executions("g") == 2, what="the task runs elsewhere")
    (fleet.directory / "stale").touch()  # its handler returns as soon as it goes on
    stale.resume()
    until(lambda: "its lease is lost" in stale.log or "too late" in stale.log or "registers anew" in stale.log)
    (fleet.directory / "fresh").touch()

    assert handle.result(timeout=20) == "fresh"
    assert fresh.terminate() == 0
    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    view = handle.status()
    assert (view.state, view.losses, view.attempts) == (TaskState.COMPLETED, 1, 0)
    assert fleet.queue().completed_total == 2
    assert stale.terminate() == 0


def test_an_idle_worker_that_was_suspended_past_its_lease_serves_again(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    worker = fleet.worker()
    worker.suspend()
    until(lambda: not fleet.app.client.workers(), what="the broker gives the worker up")

    worker.resume()

    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    assert worker.terminate() == 0


def test_a_worker_given_up_while_its_broker_was_killed_too_changes_nothing(fleet: Fleet) -> None:
    broker = fleet.broker(**LEASE)
    stale = fleet.worker(name="stale")
    handle = fleet.bind(handlers.gated).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") == 1 and handle.status().started)

    stale.suspend()
    broker.kill()
    broker.start()
    fleet.worker(name="fresh")
    until(lambda: fleet.executions("g") == 2, what="the task runs elsewhere")
    (fleet.directory / "fresh").touch()
    assert handle.result(timeout=20) == "fresh"
    broker.kill()
    broker.start()
    (fleet.directory / "stale").touch()
    stale.resume()

    until(lambda: stale.log.count("connected to broker") >= 2, what="the worker comes back")
    assert handle.status().state is TaskState.COMPLETED
    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    assert fleet.app.handle(handle.id).result(timeout=5) == "fresh"
    assert fleet.queue().completed_total == 2
