"""Single enqueues of threads: a frame each."""

import os

import pytest

from tests.client.scripted import LIMITS
from tq.client.batches import FrameCutter
from tq.client.ids import ClientIds
from tq.client.sync_enqueuer import SyncEnqueuer
from tq.core.errors import DuplicateTask
from tq.core.task import NewTask, Task, TaskSpec
from tq.protocol.messages import Enqueue, Enqueued, RefusedEnqueue


def test_a_task_travels_in_a_frame_of_its_own() -> None:
    sent: list[Enqueue] = []

    def send(frame: Enqueue) -> Enqueued:
        sent.append(frame)
        return Enqueued()

    enqueuer = SyncEnqueuer(FrameCutter(ClientIds(lambda: 1_000, os.urandom)), send)

    ids = [enqueuer.enqueue(Task(TaskSpec("a"), b"x"), LIMITS) for _ in range(2)]
    enqueuer.close()

    assert [frame.tasks for frame in sent] == [[NewTask(task_id, 0, b"x")] for task_id in ids]


def test_a_refusal_is_raised() -> None:
    def send(frame: Enqueue) -> Enqueued:
        return Enqueued([RefusedEnqueue(0, "duplicate_task", "exists")])

    enqueuer = SyncEnqueuer(FrameCutter(ClientIds(lambda: 1_000, os.urandom)), send)

    with pytest.raises(DuplicateTask, match="exists"):
        enqueuer.enqueue(Task(TaskSpec("a"), b"x"), LIMITS)
