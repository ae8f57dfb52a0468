"""Tasks: what a client asks for, and the record that the queue keeps and delivers.

A frame of tasks names each distinct `TaskSpec` once; the broker validates it once and
stores it with every task.  Invariant: the payload is opaque to everything between the
code that calls and the handler that is called.

Encodings are MessagePack arrays: a field may be added at the end, with a default, and
never removed or moved (https://jcristharif.com/msgspec/schema-evolution.html).  What cannot be
said so is a new ``RECORD_FORMAT``, which an older version refuses to read.
"""

from typing import Annotated, Self
from uuid import UUID

import msgspec

from tq.core.errors import NotSerializable
from tq.core.ids import TaskId, is_uuid7, parse_id
from tq.core.lifecycle import TaskState
from tq.core.limits import NAME_LENGTH_MAX
from tq.core.outcome import TaskFailure
from tq.core.priority import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, Priority, parse_priority
from tq.core.queue import DEFAULT_QUEUE, check_queue_name
from tq.core.retry import RetryPolicy
from tq.core.times import DAY, HOUR, Timestamp, milliseconds
from tq.core.whole import check_whole

# What this version writes, and the oldest that it reads.  A record of another format is read by nobody.
RECORD_FORMAT = 1
RECORD_FORMAT_MIN = 1
TIMEOUT_MS_MAX = 30 * DAY
RESULT_TTL_MS_MAX = 30 * DAY
LOSSES_LIMIT = 100


class TaskSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Everything about a task but its identity and its payload.

    ``timeout_ms``: how long one attempt may run.  ``result_ttl_ms``: how long the
    result is kept; 0 keeps none.  ``max_losses``: how often a worker may die while
    running it before it is dead.  ``codec``: how the payload and the result are encoded.
    """

    name: str
    queue: str = DEFAULT_QUEUE
    priority: int = PRIORITY_DEFAULT
    timeout_ms: int = HOUR
    result_ttl_ms: int = HOUR
    retry: RetryPolicy = RetryPolicy()
    max_losses: int = 3
    codec: str = "msgpack"

    def check(self) -> None:
        """Raise ValueError, naming the field and the limit, if the spec cannot be honoured.

        The bounds of the retry policy are checked when it is built or decoded.
        """
        check_task_name(self.name)
        check_queue_name(self.queue)
        for field, value, low, high in (
            ("priority", self.priority, PRIORITY_MIN, PRIORITY_MAX),
            ("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX),
            ("result_ttl_ms", self.result_ttl_ms, 0, RESULT_TTL_MS_MAX),
            ("max_losses", self.max_losses, 1, LOSSES_LIMIT),
        ):
            if type(value) is not int or not low <= value <= high:
                check_whole(f"task {self.name!r}: {field}", value, low, high)
        if not isinstance(self.retry, RetryPolicy):
            raise ValueError(f"task {self.name!r}: retry must be a RetryPolicy; got {self.retry!r}")  # noqa: TRY004
        if self.codec not in CODECS:
            raise ValueError(f"task {self.name!r}: codec must be one of {', '.join(CODECS)}; got {self.codec!r}")


CODECS = ("msgpack", "json")


def check_task_name(name: str) -> None:
    """Raise ValueError unless *name* can name a task: text of 1 to 255 characters."""
    if not isinstance(name, str):
        raise ValueError(f"a task name is text; got {name!r}")  # noqa: TRY004  # one exception for all that is wrong
    if not 0 < len(name) <= NAME_LENGTH_MAX:
        raise ValueError(f"a task name has 1 to {NAME_LENGTH_MAX} characters; got {len(name)}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a task name is text that UTF-8 can encode; got {name!r}") from None


class Task(msgspec.Struct, frozen=True, gc=False):
    """A task to enqueue: its spec and its payload; the id is given to it when it is sent if it has none.

    The payload encodes ``[args, kwargs]`` by ``spec.codec``.
    """

    spec: TaskSpec
    payload: bytes
    id: TaskId | None = None

    def __repr__(self) -> str:
        """Show no argument: some are secret, and it ends up in logs."""
        return f"Task({self.spec!r}, payload=<{len(self.payload)} bytes>, id={self.id!r})"

    @classmethod
    def build(cls, name: str) -> "TaskBuilder":
        """Start a task by its handler's name: ``Task.build("mail.send").args("a@b.c").priority("high").task()``."""
        return TaskBuilder(TaskSpec(name))


class NewTask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A task as a frame carries it: its id, which of the frame's specs it has (from 0), its payload."""

    id: bytes
    spec_index: int
    payload: bytes


class TaskBuilder:
    """Collects the parts of a `Task`; each call returns the builder, `task` returns the task.

    Raises:
        ValueError: From each call: the value is out of its bounds.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._spec = spec
        self._args: tuple[object, ...] = ()
        self._kwargs: dict[str, object] = {}
        self._id: TaskId | None = None

    def _with(self, **changes: object) -> Self:
        spec = msgspec.structs.replace(self._spec, **changes)
        spec.check()
        self._spec = spec
        return self

    def args(self, *args: object, **kwargs: object) -> Self:
        """Set the arguments of the call."""
        self._args, self._kwargs = args, kwargs
        return self

    def queue(self, name: str) -> Self:
        """Send it to queue *name* (default: ``default``)."""
        return self._with(queue=name)

    def priority(self, priority: int | str) -> Self:
        """Set the priority: 0-255, or ``low``, ``normal``, ``high``."""
        return self._with(priority=parse_priority(priority))

    def timeout(self, seconds: float) -> Self:
        """Set how long one attempt may run."""
        return self._with(timeout_ms=milliseconds(seconds))

    def keep_result(self, seconds: float) -> Self:
        """Set how long the result is kept; 0 keeps none."""
        return self._with(result_ttl_ms=milliseconds(seconds))

    def retry(self, policy: RetryPolicy) -> Self:
        """Set the retry policy."""
        return self._with(retry=policy)

    def id(self, task_id: TaskId | str | UUID) -> Self:
        """Set the id, a UUIDv7 that no other task has: its bytes, its text, as of `Handle.id`, or a `uuid.UUID`."""
        if not isinstance(task_id, bytes):
            text = str(task_id)
            task_id = parse_id(text)
            if not is_uuid7(task_id):
                raise ValueError(f"a task id is a UUID of version 7; got {text!r}")
        self._id = task_id
        return self

    def task(self) -> Task:
        """Return the task, its arguments encoded as MessagePack.

        Raises:
            NotSerializable: An argument cannot be encoded.
        """
        self._spec.check()
        try:
            payload = msgspec.msgpack.encode((self._args, self._kwargs))
        except (OverflowError, RecursionError, TypeError, ValueError) as error:
            raise NotSerializable(f"task {self._spec.name!r}: its arguments cannot be encoded: {error}") from error
        return Task(self._spec, payload, self._id)


class TaskRecord(msgspec.Struct, array_like=True, gc=False):
    """A task as the broker stores it and as a worker receives it.

    ``generation`` grows with each redrive; ``attempts`` counts failures of the handler
    and ``losses`` deaths of its worker, both in this generation.
    """

    format: Annotated[int, msgspec.Meta(ge=RECORD_FORMAT_MIN, le=RECORD_FORMAT)]
    id: bytes
    spec: TaskSpec
    payload: bytes
    enqueued_at: int
    generation: int = 1
    attempts: int = 0
    losses: int = 0
    last_failure: TaskFailure | None = None

    def __repr__(self) -> str:
        """Show no argument, as a `Task` does not."""
        return f"TaskRecord(id={self.id!r}, name={self.spec.name!r}, payload=<{len(self.payload)} bytes>)"


class TaskView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the broker tells about one task.

    ``started`` is true when the worker has said that the handler runs; ``due_at`` is
    set for a scheduled task, ``worker`` for a running one.
    """

    id: bytes
    name: str
    queue: str
    state: TaskState
    priority: Priority | None = None
    enqueued_at: Timestamp | None = None
    due_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    generation: int = 1
    attempts: int = 0
    losses: int = 0
    max_attempts: int | None = None
    timeout_ms: int | None = None
    payload_bytes: int | None = None
    worker: str | None = None
    started: bool = False
    reason: str | None = None
    failure: TaskFailure | None = None
    result: bytes | None = None
    codec: str = "msgpack"
