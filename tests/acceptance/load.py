"""A load of tasks of all kinds, and the checks that it came to its end: nothing lost, nothing twice.

producer = Producer(fleet.url, fleet.bind(handlers.work), seed)
producer.start()
...                                     # whatever is done to the fleet
producer.stop()
until(fleet.is_drained)
check_all_ended_as_meant(fleet, producer)
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

from tests.acceptance.fleet import Fleet
from tq import App, Task, TaskQueueError
from tq.app.declared import DeclaredTask
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.task import TaskView

KINDS = ["done", "done", "done", "done", "flaky", "failing", "rejected"]
ATTEMPTS = {"done": 1, "flaky": 2, "failing": 2, "rejected": 1}
BULK = 20
CROWD = 10


class Producer:
    """Enqueues in three manners at once until it is stopped, and knows what was acknowledged.

    About a thousand tasks a second: what it leaves behind must be done before the test ends.
    """

    def __init__(self, url: str, task: DeclaredTask[[str, str, float], Any, str], seed: int) -> None:
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
            seconds = self._draw.choice([0.0, 0.002, 0.005])
        return keys, [self._task._task((key, self.kinds[key], seconds), {}) for key in keys]

    def _bulk(self) -> None:
        with App(self._url) as app:
            while not self._over.is_set():
                keys, tasks = self._tasks(BULK)
                self._note(keys, partial(app.client.enqueue_many, tasks))
                time.sleep(0.05)

    def _single(self) -> None:
        with App(self._url) as app:
            while not self._over.is_set():
                keys, (task,) = self._tasks(1)
                self._note(keys, partial(_alone, app, task))
                time.sleep(0.004)

    def _crowd(self) -> None:
        async def run() -> None:
            async with App(self._url) as app:
                while not self._over.is_set():
                    await asyncio.gather(*[self._one_of_crowd(app) for _ in range(CROWD)])
                    await asyncio.sleep(0.02)

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


def _alone(app: App, task: Task) -> list[TaskId]:
    return [app.client.enqueue(task)]


def check_all_ended_as_meant(fleet: Fleet, producer: Producer) -> None:
    """Check every acknowledged task, and that the counters of the queue add up to them."""
    ids_of = executed(fleet)
    check_each_ended_as_meant(fleet, producer, ids_of)
    check_counters(fleet, producer, ids_of)


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
