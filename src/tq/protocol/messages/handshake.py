"""How a connection begins and ends, and what belongs to every one: hello, welcome, refusals, pings."""

from enum import Enum
from typing import NamedTuple

import msgspec

from tq.core.lease import DeliveryRef
from tq.core.worker import WorkerInfo

MAGIC = b"tq"


class Versions(NamedTuple):
    """The versions of the protocol that one side speaks, from *first* to *last*."""

    first: int
    last: int

    def shared_with(self, other: "Versions") -> int | None:
        """Return the highest version that both speak, if there is one."""
        highest = min(self.last, other.last)
        return highest if highest >= max(self.first, other.first) else None

    def __str__(self) -> str:
        return f"version {self.first}" if self.first == self.last else f"versions {self.first} to {self.last}"


VERSIONS = Versions(1, 1)
"""What this version of tq speaks, on both sides."""


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
    """First message of every connection, in every version: what it begins with never changes.

    The peer speaks the versions from ``version`` to ``version_max``.  The first broker of all reads
    ``version`` only, so that this is the lowest.
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
    version_max: int = 1

    @property
    def offered(self) -> Versions:
        """The versions that the peer speaks."""
        return Versions(self.version, max(self.version, self.version_max))


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
    """Answer to `Hello`: the connection speaks ``version``, the highest that both sides do.

    ``clock_ms`` is the broker's time, by which a client makes its frame ids.
    ``lost`` are tasks that a worker said it holds and does not: stop them.
    """

    version: int
    server: str
    clock_ms: int
    limits: Limits
    resumed: bool = False
    lost: list[DeliveryRef] = []


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


class GoingAway(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The broker is about to stop: finish nothing new here, reconnect."""

    reason: str = ""
