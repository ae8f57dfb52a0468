"""The run: round after round, each scenario by each subject in turn: all share the machine's good and bad times.

Invariant: what fails of tq or of the floor ends the run; what fails of a peer is noted, and its place stays empty.
"""

import sys
import time
from collections.abc import Callable, Sequence

from bench.figures import FULL, Extent, Measured, Results, Sizes
from bench.scenarios import both, callers, latency, life, pools
from bench.systems.catalog import SYSTEMS, Subject
from bench.systems.running import python
from tq.testing.programs import ProgramError

SCENARIOS: dict[str, Callable[[Subject, Sizes], Measured]] = {
    "callers": callers.measure,
    "life": life.measure,
    "pools": pools.measure,
    "both": both.measure,
    "latency": latency.measure,
}
OWN = {"tq", "floor"}


def prepare(systems: Sequence[str]) -> None:
    """Make the environments and fetch the servers.

    Raises:
        NotToBeHadError: One of them cannot be had.
    """
    for name in systems:
        system = SYSTEMS[name]
        python(name)
        if system.executable is not None:
            system.executable()


def measure(systems: Sequence[str], scenarios: Sequence[str], extent: Extent = FULL) -> Results:
    """Measure the scenarios of the systems, at each of their durabilities.

    Raises:
        ProgramError: tq or the floor failed.
    """
    results = Results()
    subjects = [Subject(name, durability) for name in systems for durability in SYSTEMS[name].durabilities]
    steps = [
        (number, scenario, subject)
        for number in range(1, extent.rounds + 1)
        for scenario in scenarios
        for subject in subjects
    ]
    began = time.monotonic()
    for index, (number, scenario, subject) in enumerate(steps):
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        where = f"[{index + 1}/{len(steps)}, {minutes}:{seconds:02}] round {number}/{extent.rounds}"
        print(f"{where}: {scenario}, {subject.title}", file=sys.stderr)
        try:
            results.add(subject, SCENARIOS[scenario](subject, extent.of(subject)))
        except ProgramError as error:
            if subject.system in OWN:
                raise
            print(f"failed: {error}", file=sys.stderr)
            results.fail(subject, scenario, str(error).partition("\n")[0])
    return results
