"""Commands: everything the engine can be asked to do, each with the type of its answer.

They share the vocabulary's values with the wire's messages but are not messages: a
session here is who the broker knows the peer to be, never what the peer claims.
"""

from typing import Generic, TypeVar

import msgspec

from tq.core.outcome import Done, FailedAttempt, TaskResult
from tq.core.queue import QueueView
from tq.core.task import NewTask, TaskSpec, TaskView
from tq.core.worker import WorkerInfo, WorkerView

A = TypeVar("A")


class Command(msgspec.Struct, Generic[A], frozen=True, gc=False):
    """Something the engine can be asked to do, answered by an ``A``."""


class Registered(msgspec.Struct, frozen=True, gc=False):
    """Answer to `Register`: whether the session was known, and the (token, index) pairs it does not hold.

    ``rest``: some of what it held is not dealt with yet; the same is to be asked again, of a later batch.
    """

    resumed: bool
    lost: list[tuple[int, int]]
    rest: bool = False


class Enqueue(Command[list[tuple[int, str, str]]], frozen=True, gc=False):
    """Tasks under a frame id that a resend repeats; answered by those refused, as (index, code, text)."""

    frame_id: bytes
    specs: list[TaskSpec]
    tasks: list[NewTask]


class Register(Command[Registered], frozen=True, gc=False):
    """A worker connects, for the first time or again; ``held`` as (token, indexes, started indexes)."""

    session: bytes
    secret: bytes
    info: WorkerInfo
    held: list[tuple[int, list[int], list[int]]]


class Subscribe(Command[None], frozen=True, gc=False):
    """A worker names the queues it serves, with their weights."""

    session: bytes
    queues: list[tuple[str, int]]
    weighted: bool


class SetWindow(Command[None], frozen=True, gc=False):
    """A worker says how much it is willing to hold."""

    session: bytes
    tasks: int
    payload_bytes: int


class SetReading(Command[None], frozen=True, gc=False):
    """A worker has stopped to read what is sent to it, or reads again."""

    session: bytes
    reads: bool


class Settled(msgspec.Struct, frozen=True, gc=False):
    """Answer to `Settle`: the (token, index) pairs that are not the worker's, and what is to be asked of a later batch.

    A failed task is written anew with its payload, however short the words that say so.
    """

    lost: list[tuple[int, int]]
    rest: "Settle | None"


class Settle(Command[Settled], frozen=True, gc=False):
    """Outcomes of a worker."""

    session: bytes
    done: list[Done]
    failed: list[FailedAttempt]


class MarkStarted(Command[list[tuple[int, int]]], frozen=True, gc=False):
    """These tasks really run; answered by those that are to be asked of a later batch."""

    session: bytes
    tasks: list[tuple[int, int]]


class Release(Command[list[tuple[int, int]]], frozen=True, gc=False):
    """These tasks come back unstarted; answered by those that are to be asked of a later batch."""

    session: bytes
    tasks: list[tuple[int, int]]


class Beat(Command[None], frozen=True, gc=False):
    """A worker process lives; its event loop has turned if *progress* is another than before."""

    session: bytes
    progress: int
    blocked_by: str | None = None
    stuck: list[str] = []


class Disconnect(Command[None], frozen=True, gc=False):
    """A worker's connection ended; it may come back within its lease time."""

    session: bytes


class Leave(Command[bool], frozen=True, gc=False):
    """A worker leaves for good; False: it still holds something, and is to be asked again, of a later batch."""

    session: bytes


class Wait(Command[tuple[list[TaskResult], list[bytes]]], frozen=True, gc=False):
    """A connection wants to hear how these tasks end."""

    connection: int
    ids: list[bytes]


class Unwait(Command[None], frozen=True, gc=False):
    """A connection no longer wants to hear of these tasks; None: of any."""

    connection: int
    ids: list[bytes] | None


class Get(Command[list[TaskView | None]], frozen=True, gc=False):
    """Look tasks up."""

    ids: list[bytes]


class ListTasks(Command[tuple[list[TaskView], bytes | None]], frozen=True, gc=False):
    """A page of the tasks in one state."""

    state: str
    queue: str | None
    limit: int
    cursor: bytes | None


class Cancel(Command[list[tuple[bytes, str, str]]], frozen=True, gc=False):
    """Withdraw tasks that are ready or scheduled."""

    ids: list[bytes]


class ListQueues(Command[tuple[list[QueueView], bytes | None]], frozen=True, gc=False):
    """A page of the queues, all of them for no limit, or the one named, in detail."""

    name: str | None
    limit: int | None = None
    cursor: bytes | None = None


class PauseQueue(Command[int], frozen=True, gc=False):
    """Stop handing out tasks of a queue, or go on."""

    name: str
    paused: bool


class PurgeQueue(Command[int], frozen=True, gc=False):
    """Drop what is ready and scheduled in a queue."""

    name: str


class RedriveDead(Command[int], frozen=True, gc=False):
    """Put dead letters back into their queue: those named, else all of ``queue``."""

    queue: str | None
    ids: list[bytes]


class ForgetDead(Command[int], frozen=True, gc=False):
    """Forget dead letters: those named, else all of ``queue``."""

    queue: str | None
    ids: list[bytes]


class ListWorkers(Command[tuple[list[WorkerView], bytes | None]], frozen=True, gc=False):
    """A page of the live workers, all of them for no limit."""

    limit: int | None = None
    cursor: bytes | None = None


class Totals(msgspec.Struct, gc=False):
    """Sums over all queues: what they hold now, and what has happened since the data exists."""

    queues: int = 0
    ready: int = 0
    running: int = 0
    scheduled: int = 0
    dead: int = 0
    enqueued_total: int = 0
    completed_total: int = 0
    failed_total: int = 0
    lost_total: int = 0


class GetTotals(Command[Totals], frozen=True, gc=False):
    """The sums over all queues."""


class Tick(Command[None], frozen=True, gc=False):
    """Time has passed: do a slice of what it brings."""
