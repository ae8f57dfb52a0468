"""What a worker and its keeper say and hear: subscribe, deliver, settle, live."""

import msgspec

from tq.core.lease import DeliveryRef
from tq.core.outcome import Done, FailedAttempt


class QueueWeight(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A queue that a worker serves, and its share of turns at equal priority: 1 or more."""

    name: str
    weight: int


class Subscribe(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The queues that a worker serves, replacing earlier ones.

    Across queues the more urgent task goes first; at equal priority tasks go by weight
    when ``weighted``, else the older first.
    """

    queues: list[QueueWeight]
    weighted: bool = False


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How much a worker is willing to hold, unsettled: credit in tasks and in payload bytes.

    Absolute, not added to earlier ones: the broker delivers while it holds less.
    0 tasks stops deliveries.
    """

    tasks: int
    payload_bytes: int


class Deliver(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks under one lease token; a task is named by it and by its index here (`DeliveryRef`).

    Each record is a `tq.core.task.TaskRecord`.  ``alone``: the task is suspected of
    killing workers, and this worker gets no other until it is settled.
    """

    token: int
    alone: bool
    records: list[msgspec.Raw]


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Outcomes of any deliveries together."""

    done: list[Done]
    failed: list[FailedAttempt] = []


class Settled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Durable, but for the tasks in ``lost``, whose outcome changed nothing."""

    lost: list[DeliveryRef] = []


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """These tasks really run (a keeper says it of those whose loop has stopped turning)."""

    tasks: list[DeliveryRef]


class Release(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """These tasks have not been started and are handed back, unharmed."""

    tasks: list[DeliveryRef]


class Revoke(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The leases of these tasks are gone: stop them; their outcome would change nothing."""

    tasks: list[DeliveryRef]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The worker process lives.

    ``progress`` grows as long as its event loop turns; without that a worker keeps only what it has started.
    ``blocked_by`` names the task that has kept it from turning, once that has lasted over a second;
    ``stuck`` the tasks that were given up and whose handlers still run, one for each, up to `STUCK_MAX`.
    """

    progress: int
    blocked_by: str | None = None
    stuck: list[str] = []


class Goodbye(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The worker leaves for good: what it still holds unstarted goes back, its session ends."""
