"""The worker: receives tasks under leases, runs their handlers, settles their outcomes.

    link -> dispatcher -> pool -> executor -> dispatcher -> link

`Worker` puts the parts together and leads a worker's life; `keeper` tells the broker
that the process lives, whatever its handlers do.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tq.worker.worker import Worker

__all__ = ["Worker"]


def __getattr__(name: str) -> object:
    # Imported at its first use: the settings and the child processes are in this package too, and need none of it.
    if name != "Worker":
        raise AttributeError(f"module 'tq.worker' has no attribute {name!r}")
    from tq.worker.worker import Worker  # noqa: PLC0415  # see above

    return Worker
