"""Latency on an idle machine: a hundred tasks a second, from enqueue to handler start and to the result.

The times are of one clock, the machine's monotonic one, which all processes share.  Where no
results are kept there are none to measure, and the worker is a second connection of the client.
"""

from contextlib import nullcontext

from bench.figures import Measured, Sizes
from bench.systems.catalog import SYSTEMS, Shape, Subject
from bench.systems.running import running


def measure(subject: Subject, sizes: Sizes) -> Measured:
    """Measure to the start, and to the result where there is one."""
    keeps_results = SYSTEMS[subject.system].keeps_results
    with (
        running(subject, results=True) as system,
        system.worker(Shape.ONE) if keeps_results else nullcontext(),
    ):
        times = system.ask("latency", tasks=sizes.latency)
    return {"start": times["starts"], "result": times["results"]} if keeps_results else {"start": times["starts"]}
