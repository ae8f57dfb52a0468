"""Drains by more than one worker process of coroutines: two processes, a pool of threads, a pool of processes."""

from bench.figures import Measured, Sizes
from bench.scenarios.life import live
from bench.systems.catalog import SYSTEMS, Shape, Subject


def measure(subject: Subject, sizes: Sizes) -> Measured:
    """Measure what the system has; pools, which the disk is no part of, at its first durability."""
    system = SYSTEMS[subject.system]
    shapes = [shape for shape in system.shapes if shape is not Shape.ONE]
    if subject.durability != system.durabilities[0]:
        shapes = [Shape.TWO]
    return {
        f"drain_{shape}": live(
            subject, shape, "noop_plain" if shape in system.plain else "noop", tasks(shape, sizes)
        ).drain
        for shape in shapes
    }


def tasks(shape: Shape, sizes: Sizes) -> int:
    """Return how many tasks are drained: a pool of processes hands each task to another one, which takes its time."""
    return sizes.bulk if shape is Shape.TWO else sizes.pools
