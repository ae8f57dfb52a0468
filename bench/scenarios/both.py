"""Both at once: one producer enqueues in bulk while one worker process drains; and the CPU that each part uses."""

from bench.figures import Measured, Sizes
from bench.systems.catalog import Shape, Subject
from bench.systems.running import running


def measure(subject: Subject, sizes: Sizes) -> Measured:
    """Measure with no results."""
    with running(subject) as system, system.worker(Shape.ONE):
        before = system.cpu()
        seconds = system.ask("both", tasks=sizes.both)["seconds"]
        after = system.cpu()
    used = {
        f"cpu_{part}": (now - then) / sizes.both * 1e6
        for part, then, now in zip(before._fields, before, after, strict=True)
    }
    return {"both": sizes.both / seconds} | used
