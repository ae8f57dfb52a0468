"""Queues: their names, and what the broker tells about them.

A queue exists from its first task or its first worker on.
"""

import re

import msgspec

from tq.core.limits import QUEUE_NAME_LENGTH_MAX

DEFAULT_QUEUE = "default"
# The braces are for the placement group: the part of the name that a cluster keeps on one machine.
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/{}-]*\Z")


def check_queue_name(name: str) -> None:
    """Raise ValueError unless *name* can name a queue: 1-128 letters, digits and ``_ . : / { } -``."""
    if not isinstance(name, str):
        raise ValueError(f"a queue name is text; got {name!r}")  # noqa: TRY004  # one exception for all that is wrong
    if len(name) > QUEUE_NAME_LENGTH_MAX or not _QUEUE_NAME.match(name):
        raise ValueError(
            f"a queue name has 1 to {QUEUE_NAME_LENGTH_MAX} letters, digits and _ . : / {{ }} -, "
            f"and starts with a letter, digit or _; got {name[:140]!r}"
        )


class QueueView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the broker tells about one queue: what it holds now, and totals since it exists.

    ``workers`` counts the connected workers that serve it; ``names_unserved`` are the names
    of waiting tasks that none of them has a handler for (only when one queue is asked for;
    as many as fit a frame).
    """

    name: str
    paused: bool
    ready: int
    running: int
    scheduled: int
    dead: int
    workers: int
    enqueued_total: int
    completed_total: int
    failed_total: int
    lost_total: int
    dead_total: int
    cancelled_total: int
    purged_total: int
    purging: bool = False
    names_unserved: list[str] | None = None
