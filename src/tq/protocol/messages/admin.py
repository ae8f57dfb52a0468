"""What an operator asks: of queues, dead letters, workers and the broker as a whole."""

from enum import Enum

import msgspec

from tq.core.queue import QueueView
from tq.core.worker import WorkerView


class ListQueues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page of the queues, in the order in which they came to be, or the one named, with its unserved names.

    ``limit`` is 1 to 1,000; None is for all in one answer, refused with `BatchTooLarge` if
    they do not fit a frame.  A page may be shorter than its limit.
    """

    name: str | None = None
    limit: int | None = None
    cursor: bytes | None = None


class Queues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `ListQueues`, with where to go on; None after the last."""

    queues: list[QueueView]
    cursor: bytes | None = None


class QueueAction(Enum):
    """What can be done to a queue."""

    PAUSE = "pause"
    """No deliveries until it is resumed; enqueues go on."""
    RESUME = "resume"
    PURGE = "purge"
    """Drop what is ready and scheduled, at once; what runs is left to end."""


class ControlQueue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Do *action* to queue *name*; answered with `Affected`."""

    name: str
    action: QueueAction


class DeadAction(Enum):
    """What can be done to dead letters."""

    REDRIVE = "redrive"
    """Back to their queue as a new generation, attempts and losses at zero."""
    PURGE = "purge"
    """Forgotten."""


class ControlDead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Do *action* to dead letters: to those named, else to all of *queue*; answered with `Affected`.

    A named task that is not dead refuses the whole request (`wrong_state`).
    """

    action: DeadAction
    queue: str | None = None
    ids: list[bytes] = []


class Affected(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many tasks an action concerns; a large one goes on in slices after this answer."""

    tasks: int


class ListWorkers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page of the live workers; limit and cursor are as in `ListQueues`."""

    limit: int | None = None
    cursor: bytes | None = None


class Workers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `ListWorkers`, with where to go on; None after the last."""

    workers: list[WorkerView]
    cursor: bytes | None = None


class GetStats(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Figures of the broker as a whole."""


class Stats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Answer to `GetStats`: counts now, totals since the data exists, and the process."""

    server: str
    started_at: int
    clock_ms: int
    durability: str
    store: str
    connections: int
    workers: int
    queues: int
    ready: int
    running: int
    scheduled: int
    dead: int
    enqueued_total: int
    completed_total: int
    failed_total: int
    lost_total: int
    commits_total: int
    commit_ms_mean: float
    rss_bytes: int
    disk_free_bytes: int | None = None
