"""One task in the hands of a worker: what was delivered, where it is, how it ended.

    WAITING -> RUNNING -> FINISHED -> settled, and forgotten
       |          |          |
       +----------+----------+--> GONE: handed back, or its lease is lost

Invariant: an assignment is named by (token, index), as on the wire, and an outcome of
one that is GONE is dropped.
"""

import functools
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

import msgspec

from tq.app.registry import Handler
from tq.core.outcome import TaskFailure
from tq.core.task import TaskSpec


class Delivered(msgspec.Struct, array_like=True, gc=False):
    """A `tq.core.task.TaskRecord` as a worker reads it: without what it has no use for.

    The spec stays encoded: tasks of one kind share theirs, so it is looked up by its
    bytes instead of decoded for each.
    """

    format: int
    id: bytes
    spec: msgspec.Raw
    payload: bytes
    enqueued_at: int
    generation: int = 1
    attempts: int = 0
    losses: int = 0

    def __repr__(self) -> str:
        """Show no argument: some are secret, and it ends up in logs."""
        return f"Delivered(id={self.id!r}, payload=<{len(self.payload)} bytes>, attempts={self.attempts})"


class Plan:
    """What the worker knows of all tasks with one spec: how to call the handler, and for how long.

    ``is_known`` is false for a task that this program does not declare, ``is_proven``
    until the handler has come to an end of its own for one such task.  *provided* is what hooks give, by annotation.
    """

    __slots__ = (
        "codec",
        "decode",
        "encode_result",
        "function",
        "is_async",
        "is_known",
        "is_proven",
        "keeps_result",
        "name",
        "reject_on",
        "soft_timeout_s",
        "spec",
        "timeout_s",
    )

    def __init__(
        self, spec: TaskSpec, handler: Handler | None, provided: Mapping[Any, Any] = MappingProxyType({})
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.codec = spec.codec
        self.keeps_result = spec.result_ttl_ms > 0
        self.timeout_s = spec.timeout_ms / 1_000
        self.is_known = handler is not None
        self.is_proven = False
        self.soft_timeout_s = None if handler is None else handler.soft_timeout_s
        if handler is not None:
            self.function = handler.function
            if handler.provided:
                values = {name: provided[kind] for name, kind in handler.provided_types().items() if kind in provided}
                self.function = functools.partial(handler.function, **values)
            self.is_async = handler.is_async
            self.reject_on = handler.reject_on
            self.decode = handler.decode
            self.encode_result = handler.encode_result


class Stage(Enum):
    """Where a held task is; see the figure above."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    GONE = "gone"


class Stop(Enum):
    """Why a running task is being stopped."""

    TIMEOUT = "timeout"
    """It has run for its timeout."""
    LOST = "lost"
    """Its lease is lost: another worker may run it, and its outcome would change nothing."""
    LEAVING = "leaving"
    """The worker leaves and has waited for it as long as it was told to."""


class Failed(msgspec.Struct, frozen=True, gc=False):
    """An attempt that failed.

    ``retry_after_ms``: wait so long, instead of by the task's policy.  ``reject``: no
    more attempts.  ``by_handler``: its handler came to an end of its own; false where it was never
    called, or was ended.
    """

    failure: TaskFailure
    retry_after_ms: int | None = None
    reject: bool = False
    by_handler: bool = True


Outcome = bytes | Failed | None
"""How an attempt ended: an encoded result, None where none is kept, or a failure."""


class Assignment(msgspec.Struct, eq=False):
    """One task under a lease.

    ``run_by`` belongs to the pool that runs it.  ``marked``: the broker was told that it
    has started.  ``has_begun`` is false while its pool waits to hear that it runs: it may come
    back as if it had never been given.  ``stop``: why it is being stopped, if it is; ``give_up_at``: when it is
    abandoned if it has not ended by then.  ``soft_is_told``: its pool was asked to raise
    `SoftTimeout` in it; ``soft_is_due``: that is still to be raised.
    """

    token: int
    index: int
    task: Delivered
    plan: Plan
    received_at: float
    stage: Stage = Stage.WAITING
    started_at: float = 0.0
    marked: bool = False
    has_begun: bool = True
    stop: Stop | None = None
    give_up_at: float = 0.0
    soft_is_told: bool = False
    soft_is_due: bool = False
    run_by: object = None
