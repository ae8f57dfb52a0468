"""What a client raises beside the errors of `tq.core.errors`."""

import msgspec

from tq.core.errors import BrokerError, ErrorCode, TaskQueueError
from tq.core.ids import TaskId


class RefusedTask(msgspec.Struct, frozen=True):
    """A task that was not enqueued: its place among those given, and why."""

    index: int
    code: ErrorCode
    text: str


class EnqueueRefused(BrokerError):
    """Some of the tasks of one `enqueue_many` were refused.

    ``refused`` lists them.  ``ids`` has an entry for each task that was dealt with, in
    their order: the id of an enqueued one, None for a refused one; when the broker has
    refused a whole frame, the tasks from number ``len(ids)`` on were not sent.
    ``code`` is that of the first refusal.
    """

    def __init__(self, refused: list[RefusedTask], ids: list[TaskId | None]) -> None:
        first = refused[0]
        super().__init__(
            f"{len(refused)} of {len(ids)} tasks were refused; the first is number {first.index}: "
            f"{first.code.value}: {first.text}"
        )
        self.refused = refused
        self.ids = ids
        self.code = first.code


class ResultTimeout(TaskQueueError, TimeoutError):
    """The task has not ended within the time given. It goes on; wait again, or cancel it."""
