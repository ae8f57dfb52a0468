"""The table of messages: the number of each, who may send it, what answers it.

Invariant: `MESSAGES` is complete: a number that is not in it is a violation, and so is a
message from a role that its row does not list.

Requests carry a correlation id other than 0 and get exactly one reply with the same id:
the reply named in the table, or `Error`.  Notices and pushes carry correlation id 0.
"""

from enum import IntEnum
from typing import NamedTuple

import msgspec

from tq.protocol.messages.admin import (
    Affected,
    ControlDead,
    ControlQueue,
    GetStats,
    ListQueues,
    ListWorkers,
    Queues,
    Stats,
    Workers,
)
from tq.protocol.messages.handshake import Error, GoingAway, Hello, Ok, Ping, Pong, Role, Welcome
from tq.protocol.messages.tasks import (
    Cancel,
    Cancelled,
    Enqueue,
    Enqueued,
    Get,
    ListTasks,
    Results,
    Tasks,
    Unwait,
    Wait,
    Waited,
)
from tq.protocol.messages.work import (
    Deliver,
    Goodbye,
    Heartbeat,
    Release,
    Revoke,
    Settle,
    Settled,
    Started,
    Subscribe,
    Window,
)


class Row(NamedTuple):
    """One message in the table."""

    kind: type[msgspec.Struct]
    sent_by: frozenset[Role] | None
    """Roles that may send it; None: the broker sends it."""
    reply: type[msgspec.Struct] | None = None
    """What answers it; None: it is a notice, a push or itself a reply."""
    added: int = 0
    """How many fields at its end it did not have when it was first released; each has a default."""


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
    Type.HELLO: Row(Hello, _ANY, Welcome, added=1),
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
    Type.HEARTBEAT: Row(Heartbeat, _KEEPER, Ok, added=1),
    Type.GOODBYE: Row(Goodbye, _WORKER, Ok),
    Type.LIST_QUEUES: Row(ListQueues, _CLIENT, Queues, added=2),
    Type.QUEUES: Row(Queues, None, added=1),
    Type.CONTROL_QUEUE: Row(ControlQueue, _CLIENT, Affected),
    Type.CONTROL_DEAD: Row(ControlDead, _CLIENT, Affected),
    Type.AFFECTED: Row(Affected, None),
    Type.LIST_WORKERS: Row(ListWorkers, _CLIENT, Workers, added=2),
    Type.WORKERS: Row(Workers, None, added=1),
    Type.GET_STATS: Row(GetStats, _CLIENT, Stats),
    Type.STATS: Row(Stats, None),
}

TYPE_OF: dict[type[msgspec.Struct], Type] = {row.kind: number for number, row in MESSAGES.items()}
