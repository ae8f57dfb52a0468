"""Callers that enqueue one task and wait until it is acknowledged: one of them, then a hundred."""

from bench.figures import Measured, Sizes
from bench.systems.catalog import Subject
from bench.systems.loads import CALLERS_MAX
from bench.systems.running import running


def measure(subject: Subject, sizes: Sizes) -> Measured:
    """Measure one caller and a hundred; of tq also one of its blocking client."""
    with running(subject) as system:
        measured = {
            "one": sizes.one / system.ask("callers", callers=1, tasks=sizes.one)["seconds"],
            "hundred": sizes.hundred / system.ask("callers", callers=CALLERS_MAX, tasks=sizes.hundred)["seconds"],
        }
        if subject.system == "tq":
            measured["one_blocking"] = sizes.one / system.ask("blocking", tasks=sizes.one)["seconds"]
    return measured
