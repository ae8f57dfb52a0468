"""Descriptors: how many files and sockets this process may have open, and who gets them.

The store needs some to go on: without one for its next log file a commit fails, and a
failed commit stops the broker.  Invariant: connections never get the store's.
"""

import resource
from typing import NamedTuple

from tq.store.base import OPEN_FILES_MAX

# The log, the manifest and the lock of the store, the listening sockets, the loop's own, the output.
_OTHERS = 32


class Descriptors(NamedTuple):
    """What the store and the connections may have open at a time."""

    store: int
    connections: int


def share_out(connections_max: int) -> Descriptors:
    """Raise this process's limit as far as it may, and share it out; connections get *connections_max* at most."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return shares(hard, connections_max)


def shares(limit: int, connections_max: int) -> Descriptors:
    """Return how *limit* descriptors are shared out."""
    if limit == resource.RLIM_INFINITY:
        return Descriptors(OPEN_FILES_MAX, connections_max)
    store = min(OPEN_FILES_MAX, limit // 4)
    return Descriptors(store, max(1, min(connections_max, limit - store - _OTHERS)))
