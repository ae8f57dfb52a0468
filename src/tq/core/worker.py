"""Workers: what one says of itself when it registers, and what the broker tells about it."""

import msgspec

from tq.core.times import Timestamp


class WorkerInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a worker process says of itself.

    ``tasks`` are the names it has handlers for: a task that no live worker knows stays
    queued and is shown as unserved.  ``labels`` are what its operator says of it, to be shown.
    """

    name: str
    host: str
    pid: int
    pool: str
    concurrency: int
    tasks: list[str]
    version: str = ""
    labels: dict[str, str] = {}


class WorkerView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the broker tells about one worker.

    ``held`` counts the tasks under its leases, ``started`` those it said are running;
    ``blocked_by`` names the task that keeps its event loop from turning, if any; ``stuck`` those that
    were given up, at their timeouts for one, and whose handlers still run (up to `STUCK_MAX`, one for each).
    """

    session: bytes
    info: WorkerInfo
    queues: list[str]
    connected: bool
    registered_at: Timestamp
    seen_at: Timestamp
    held: int
    started: int
    isolating: bool = False
    blocked_by: str | None = None
    stuck: list[str] = []
