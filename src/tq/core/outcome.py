"""Outcomes: how an attempt ended, what the broker keeps of it, what a caller gets.

Handlers steer by value or by exception: they return a result, raise anything (a failed
attempt, tried again by the task's policy), or raise or return `Retry` or `Reject`.
"""

import msgspec

from tq.core.errors import TaskQueueError
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.times import Timestamp

TRACEBACK_CHARACTERS_MAX = 16_384
MESSAGE_CHARACTERS_MAX = 2_048
TYPE_CHARACTERS_MAX = 255


class TaskFailure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One failed attempt as text: the exception's type, its message, its traceback.

    Longer texts are cut in the middle by whoever makes the failure (`shorten`), and by the
    broker where that was not done, so that a failure is never refused for its size.
    """

    type: str
    message: str
    traceback: str = ""

    def bounded(self) -> "TaskFailure":
        """Return the failure with texts that are as long as may be kept."""
        if (
            len(self.traceback) <= TRACEBACK_CHARACTERS_MAX
            and len(self.message) <= MESSAGE_CHARACTERS_MAX
            and len(self.type) <= TYPE_CHARACTERS_MAX
        ):
            return self
        return TaskFailure(
            shorten(self.type, TYPE_CHARACTERS_MAX),
            shorten(self.message, MESSAGE_CHARACTERS_MAX),
            shorten(self.traceback, TRACEBACK_CHARACTERS_MAX),
        )

    @property
    def text_bytes(self) -> int:
        """How long its texts are together, encoded."""
        return len(self.type.encode()) + len(self.message.encode()) + len(self.traceback.encode())


def shorten(text: str, characters_max: int) -> str:
    """Return *text*, its middle replaced by an ellipsis if it is longer than *characters_max*."""
    if len(text) <= characters_max:
        return text
    tail = characters_max * 2 // 3
    return f"{text[: characters_max - tail - 5]}\n...\n{text[-tail:]}"


class Done(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that did what it should: of the task at ``index`` of the delivery ``token``.

    ``result`` is what the handler returned, encoded; None: nothing is kept.
    """

    token: int
    index: int
    result: bytes | None


class FailedAttempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An attempt that failed, of the task at ``index`` of the delivery ``token``.

    ``retry_after_ms``: wait so long instead of by the policy.  ``reject``: no more
    attempts.
    """

    token: int
    index: int
    failure: TaskFailure
    retry_after_ms: int | None = None
    reject: bool = False


class TaskResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a task ended: what `Handle.result` waits for.

    ``result`` is the encoded return value of a completed task (None when none is kept);
    ``failure`` the last failure of a dead one.
    """

    id: bytes
    state: TaskState
    finished_at: Timestamp
    result: bytes | None = None
    reason: DeadReason | None = None
    failure: TaskFailure | None = None
    attempts: int = 0
    losses: int = 0
    codec: str = "msgpack"


class Retry(Exception):
    """Raise or return it in a handler: try again, *after* seconds (None: by the task's policy; at most a week).

    It counts as an attempt: at ``max_attempts`` the task is dead all the same.
    """

    def __init__(self, after: float | None = None, message: str = "") -> None:
        super().__init__(message or "the handler asked for a retry")
        self.after = after


class Reject(Exception):
    """Raise or return it in a handler: do not try again; the task goes to the dead letter at once."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "the handler rejected the task")


class TaskError(TaskQueueError):
    """A task ended without a result. Its `outcome` tells how."""

    def __init__(self, text: str, outcome: TaskResult) -> None:
        super().__init__(text)
        self.outcome = outcome


class TaskDead(TaskError):
    """The task is in the dead letter; the text carries the last failure and its traceback."""


class TaskCancelled(TaskError):
    """The task was cancelled, or purged with its queue, before it ran."""
