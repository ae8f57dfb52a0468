"""A task's life in bulk: enqueued while nothing is handed out, then drained by one worker process.

The CPU of the server's main thread over both is what a task costs the one thread that bounds it.
"""

import time
from typing import NamedTuple

from bench.figures import Measured, Sizes
from bench.systems.catalog import Shape, Subject
from bench.systems.running import running


class Life(NamedTuple):
    """Tasks a second enqueued and drained, and microseconds of the server's main thread for each task."""

    bulk: float
    drain: float
    cpu: float


def measure(subject: Subject, sizes: Sizes) -> Measured:
    """Measure with no results; of tq also with results kept."""
    life = live(subject, Shape.ONE, "noop", sizes.bulk)
    measured = {"bulk": life.bulk, "drain": life.drain, "life": life.cpu}
    if subject.system == "tq":
        kept = live(subject, Shape.ONE, "noop_kept", sizes.bulk)
        measured |= {"drain_kept": kept.drain, "life_kept": kept.cpu}
    return measured


def live(subject: Subject, shape: Shape, task: str, tasks: int) -> Life:
    """Let *tasks* live with workers of *shape*."""
    with running(subject, task) as system, system.worker(shape):
        system.hold()
        cpu = -system.server_main_thread()
        enqueued = float(system.ask("bulk", tasks=tasks)["seconds"])
        began = time.monotonic()
        system.let_go()
        system.ask("until_done")
        drained = time.monotonic() - began
        cpu += system.server_main_thread()
    return Life(tasks / enqueued, tasks / drained, cpu / tasks * 1e6)
