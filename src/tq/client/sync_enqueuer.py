"""Single enqueues of threads: each is a frame of its own, the broker commits them together.

It is the counterpart of `tq.client.async_enqueuer`, which collects those of a loop turn.
"""

from collections.abc import Callable

from tq.client.batches import FrameCutter
from tq.core.errors import broker_error
from tq.core.ids import TaskId
from tq.core.task import Task
from tq.protocol.messages import Enqueue, Enqueued, Limits


class SyncEnqueuer:
    """Sends single tasks; *send* carries one frame to the broker, over lost connections and all."""

    def __init__(self, cutter: FrameCutter, send: Callable[[Enqueue], Enqueued]) -> None:
        self._cutter = cutter
        self._send = send

    def enqueue(self, task: Task, limits: Limits) -> TaskId:
        """Enqueue *task*, which has been checked, and return its id.

        Raises:
            BrokerError: The broker refused it.
        """
        frame = self._cutter.single(task)
        for refused in self._send(frame).refused:
            raise broker_error(refused.code, refused.text)
        return TaskId(frame.tasks[0].id)

    def close(self) -> None:
        """Do nothing: what is on its way is its caller's."""
