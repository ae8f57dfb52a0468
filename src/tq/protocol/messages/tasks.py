"""What a client says of tasks: enqueue, look up, wait, cancel, list."""

import msgspec

from tq.core.outcome import TaskResult
from tq.core.task import NewTask, TaskSpec, TaskView


class Enqueue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Up to ``tasks_per_frame_max`` tasks, taken whole or refused whole (but for `Enqueued.refused`).

    ``frame_id`` is a UUIDv7: sending the same frame again, on any connection, gets the
    first answer again.
    """

    frame_id: bytes
    specs: list[TaskSpec]
    tasks: list[NewTask]


class RefusedEnqueue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task of a frame that was not enqueued: its index there, a code of `tq.core.errors.CODES`, and why."""

    index: int
    code: str
    text: str


class Enqueued(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Durable, but for the tasks in ``refused``."""

    refused: list[RefusedEnqueue] = []


class Get(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Look up to 1,000 tasks up."""

    ids: list[bytes]


class Tasks(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Get` (in its order, None for an unknown id) and to `ListTasks` (with where to go on)."""

    tasks: list[TaskView | None]
    cursor: bytes | None = None


class Wait(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Push me a `Results` when these up to 1,000 tasks end."""

    ids: list[bytes]


class Unwait(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """I no longer wait for these."""

    ids: list[bytes]


class Waited(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Wait`: those that have ended already, those that are unknown; the others will be pushed."""

    ended: list[TaskResult]
    unknown: list[bytes]


class Results(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks you wait for that have ended."""

    results: list[TaskResult]


class Cancel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Withdraw up to 1,000 tasks that are ready or scheduled."""

    ids: list[bytes]


class RefusedCancel(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task that was not cancelled: a code of `tq.core.errors.CODES`, and why."""

    id: bytes
    code: str
    text: str


class Cancelled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Cancel`: those that could not be."""

    refused: list[RefusedCancel] = []


class ListTasks(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page of the tasks in one state (ready, running, scheduled, dead), of one queue or of all.

    Ready tasks come in the order in which they would be handed out, scheduled ones by due
    time, dead ones oldest first.  ``limit`` is 1 to 1,000.
    """

    state: str
    queue: str | None = None
    limit: int = 100
    cursor: bytes | None = None
