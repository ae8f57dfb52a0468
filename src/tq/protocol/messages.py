"""Every message of the wire, as data: its number, its fields, who may send it.

Bodies are MessagePack arrays in the order of the fields; fields may be added at the end
with a default, never moved.  Invariant: `MESSAGES` is complete: a number that is not in
it is a violation, and so is a message from a role that its row does not list.

Requests carry a correlation id other than 0 and get exactly one reply with the same id:
the reply named in the table, or `Error`.  Notices and pushes carry correlation id 0.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

import msgspec

from tq.core.outcome import TaskFailure, TaskResult
from tq.core.queue import QueueView
from tq.core.task import TaskSpec, TaskView
from tq.core.worker import WorkerInfo, WorkerView

MAGIC = b"tq"
VERSION = 1


class Role(Enum):
    """What the peer of a broker is; it says so in its `Hello`."""

    CLIENT = "client"
    """Enqueues, waits, looks up, administers."""
    WORKER = "worker"
    """Receives deliveries and settles them."""
    KEEPER = "keeper"
    """The second connection of a worker, written by a thread: heartbeats only."""


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The tasks of one delivery that a reconnecting worker still has.

    ``indexes`` are positions in the delivery; ``started`` those of them that run or have
    run (their outcome may be waiting to be settled).
    """

    token: int
    indexes: list[int]
    started: list[int]


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """First message of every connection.

    A worker sends ``session`` and ``secret`` (16 random bytes each, made at its start and
    kept over reconnects), ``worker`` and what it holds.  A keeper sends the session and
    the secret of its worker.
    """

    magic: bytes
    version: int
    role: Role
    agent: str = ""
    session: bytes | None = None
    secret: bytes | None = None
    worker: WorkerInfo | None = None
    held: list[Held] = []


class Limits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the broker accepts, and how it keeps time.

    A worker sends a heartbeat every ``heartbeat_ms`` and loses its leases after
    ``lease_ms`` without one.
    """

    frame_bytes_max: int
    payload_bytes_max: int
    tasks_per_frame_max: int
    heartbeat_ms: int
    lease_ms: int


class Welcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Hello`.

    ``clock_ms`` is the broker's time, by which a client makes its frame ids.
    ``lost`` are (token, index) pairs that a worker said it holds and does not: stop them.
    """

    version: int
    server: str
    clock_ms: int
    limits: Limits
    resumed: bool = False
    lost: list[tuple[int, int]] = []


class Error(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A refusal: a code of `tq.core.errors.CODES`, and the particulars as text.

    With correlation id 0 it concerns the connection, which is then closed.
    """

    code: str
    text: str
    retryable: bool = False
    closes: bool = False
    retry_after_ms: int | None = None


class Ok(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Done, and durable."""


class Ping(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Are you there? Answered with `Pong`, after the broker's store answered too."""


class Pong(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Ping`."""

    server: str
    clock_ms: int


class Enqueue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Up to ``tasks_per_frame_max`` tasks, taken whole or refused whole (but for `Enqueued.refused`).

    Each task is (task id, index into specs, payload).  ``frame_id`` is a UUIDv7: sending
    the same frame again, on any connection, gets the first answer again.
    """

    frame_id: bytes
    specs: list[TaskSpec]
    tasks: list[tuple[bytes, int, bytes]]


class Enqueued(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Durable, but for the tasks in ``refused``: (index into tasks, code, text)."""

    refused: list[tuple[int, str, str]] = []


class Subscribe(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The queues that a worker serves, each with its weight (1 or more), replacing earlier ones.

    Across queues the more urgent task goes first; at equal priority tasks go by weight
    when ``weighted``, else the older first.
    """

    queues: list[tuple[str, int]]
    weighted: bool = False


class Window(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How much a worker is willing to hold, unsettled: credit in tasks and in payload bytes.

    Absolute, not added to earlier ones: the broker delivers while it holds less.
    0 tasks stops deliveries.
    """

    tasks: int
    payload_bytes: int


class Deliver(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tasks under one lease token; a task is named by (token, its index here).

    Each record is a `tq.core.task.TaskRecord`.  ``alone``: the task is suspected of
    killing workers, and this worker gets no other until it is settled.
    """

    token: int
    alone: bool
    records: list[msgspec.Raw]


class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A failed attempt of the task (token, index).

    ``retry_after_ms``: wait so long instead of by the policy.  ``reject``: no more
    attempts.
    """

    token: int
    index: int
    failure: TaskFailure
    retry_after_ms: int | None = None
    reject: bool = False


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Outcomes: ``done`` are (token, index, encoded result or None), ``failed`` the rest."""

    done: list[tuple[int, int, bytes | None]]
    failed: list[Failure] = []


class Settled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Durable, but for the (token, index) pairs in ``lost``, whose outcome changed nothing."""

    lost: list[tuple[int, int]] = []


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """These (token, index) tasks really run (a keeper says it of those whose loop has stopped turning)."""

    tasks: list[tuple[int, int]]


class Release(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """These (token, index) tasks have not been started and are handed back, unharmed."""

    tasks: list[tuple[int, int]]


class Revoke(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The leases of these (token, index) tasks are gone: stop them; their outcome would change nothing."""

    tasks: list[tuple[int, int]]


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The worker process lives.

    ``progress`` grows as long as its event loop turns; without that a worker keeps only what it has started.
    ``blocked_by`` names the task that has kept it from turning, once that has lasted over a second.
    """

    progress: int
    blocked_by: str | None = None


class Goodbye(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The worker leaves for good: what it still holds unstarted goes back, its session ends."""


class GoingAway(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The broker is about to stop: finish nothing new here, reconnect."""

    reason: str = ""


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


class Cancelled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `Cancel`: (id, code, text) of those that could not be."""

    refused: list[tuple[bytes, str, str]] = []


class ListTasks(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page of the tasks in one state (ready, running, scheduled, dead), of one queue or of all.

    Ready tasks come in the order in which they would be handed out, scheduled ones by due
    time, dead ones oldest first.  ``limit`` is 1 to 1,000.
    """

    state: str
    queue: str | None = None
    limit: int = 100
    cursor: bytes | None = None


class ListQueues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All queues, or the one named (then with its ready tasks by priority and its unserved names)."""

    name: str | None = None


class Queues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `ListQueues`."""

    queues: list[QueueView]


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
    """All live workers."""


class Workers(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `ListWorkers`."""

    workers: list[WorkerView]


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


class Row(NamedTuple):
    """One message in the table."""

    kind: type[msgspec.Struct]
    sent_by: frozenset[Role] | None
    """Roles that may send it; None: the broker sends it."""
    reply: type[msgspec.Struct] | None = None
    """What answers it; None: it is a notice, a push or itself a reply."""


_ANY = frozenset(Role)
_CLIENT = frozenset({Role.CLIENT})
_WORKER = frozenset({Role.WORKER})
_KEEPER = frozenset({Role.KEEPER})


class Type(IntEnum):
    """The number of each message, the second field of a frame's header."""

    HELLO = 1
    WELCOME = 2
    ERROR = 3
    OK = 4
    PING = 5
    PONG = 6
    GOING_AWAY = 7
    ENQUEUE = 16
    ENQUEUED = 17
    GET = 18
    TASKS = 19
    WAIT = 20
    WAITED = 21
    RESULTS = 22
    UNWAIT = 23
    CANCEL = 24
    CANCELLED = 25
    LIST_TASKS = 26
    SUBSCRIBE = 32
    WINDOW = 33
    DELIVER = 34
    SETTLE = 35
    SETTLED = 36
    STARTED = 37
    RELEASE = 38
    REVOKE = 39
    HEARTBEAT = 40
    GOODBYE = 41
    LIST_QUEUES = 48
    QUEUES = 49
    CONTROL_QUEUE = 50
    CONTROL_DEAD = 51
    AFFECTED = 52
    LIST_WORKERS = 53
    WORKERS = 54
    GET_STATS = 55
    STATS = 56


MESSAGES: dict[Type, Row] = {
    Type.HELLO: Row(Hello, _ANY, Welcome),
    Type.WELCOME: Row(Welcome, None),
    Type.ERROR: Row(Error, None),
    Type.OK: Row(Ok, None),
    Type.PING: Row(Ping, _ANY, Pong),
    Type.PONG: Row(Pong, None),
    Type.GOING_AWAY: Row(GoingAway, None),
    Type.ENQUEUE: Row(Enqueue, _CLIENT, Enqueued),
    Type.ENQUEUED: Row(Enqueued, None),
    Type.GET: Row(Get, _CLIENT, Tasks),
    Type.TASKS: Row(Tasks, None),
    Type.WAIT: Row(Wait, _CLIENT, Waited),
    Type.WAITED: Row(Waited, None),
    Type.RESULTS: Row(Results, None),
    Type.UNWAIT: Row(Unwait, _CLIENT),
    Type.CANCEL: Row(Cancel, _CLIENT, Cancelled),
    Type.CANCELLED: Row(Cancelled, None),
    Type.LIST_TASKS: Row(ListTasks, _CLIENT, Tasks),
    Type.SUBSCRIBE: Row(Subscribe, _WORKER, Ok),
    Type.WINDOW: Row(Window, _WORKER),
    Type.DELIVER: Row(Deliver, None),
    Type.SETTLE: Row(Settle, _WORKER, Settled),
    Type.SETTLED: Row(Settled, None),
    Type.STARTED: Row(Started, _WORKER | _KEEPER),
    Type.RELEASE: Row(Release, _WORKER),
    Type.REVOKE: Row(Revoke, None),
    Type.HEARTBEAT: Row(Heartbeat, _KEEPER, Ok),
    Type.GOODBYE: Row(Goodbye, _WORKER, Ok),
    Type.LIST_QUEUES: Row(ListQueues, _CLIENT, Queues),
    Type.QUEUES: Row(Queues, None),
    Type.CONTROL_QUEUE: Row(ControlQueue, _CLIENT, Affected),
    Type.CONTROL_DEAD: Row(ControlDead, _CLIENT, Affected),
    Type.AFFECTED: Row(Affected, None),
    Type.LIST_WORKERS: Row(ListWorkers, _CLIENT, Workers),
    Type.WORKERS: Row(Workers, None),
    Type.GET_STATS: Row(GetStats, _CLIENT, Stats),
    Type.STATS: Row(Stats, None),
}

TYPE_OF: dict[type[msgspec.Struct], Type] = {row.kind: number for number, row in MESSAGES.items()}
