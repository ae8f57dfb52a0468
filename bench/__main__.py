"""The program: measures all scenarios, each in pairs of floor and product, and reports.

0    every figure is within the bound beyond which it is not done
1    one is not, or a program did not do what it must
2    the command line is wrong
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import uvloop
from cyclopts import App, CycloptsError, Parameter

from bench.figures import FULL, QUICK, Measured, Sizes, rows
from bench.machine import describe
from bench.report import DOCUMENT, README, document, print_table, with_figures
from bench.scenarios import both, callers, latency, life
from examples.stdlib_index.programs import ProgramError
from tq import TaskQueueError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

Measure = Callable[[Sizes], Awaitable[Measured]]


class Scenario(NamedTuple):
    """What is measured as a pair."""

    floor: Measure
    tq: Measure


SCENARIOS = {
    "callers": Scenario(callers.measure_floor, callers.measure_tq),
    "life": Scenario(life.measure_floor, life.measure_tq),
    "both": Scenario(both.measure_floor, both.measure_tq),
    "latency": Scenario(latency.measure_floor, latency.measure_tq),
}

cli = App(
    name="python -m bench",
    help="Measure tq beside the floor of this machine, and write docs/benchmarks.md and the figures in README.md.",
    help_format="plaintext",
    version_flags=[],
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)


@cli.default
def bench(
    *names: Annotated[str, Parameter(help="Scenarios: callers, life, both, latency. [default: all]")],
    quick: Annotated[bool, Parameter(help="A short run, which writes no documents.", negative="")] = False,
    output: Annotated[
        Path | None, Parameter(help="Where to write. [default: docs/benchmarks.md, of a full run]")
    ] = None,
) -> int:
    """Run the measurements; see the module's docstring for what is returned."""
    unknown = set(names) - SCENARIOS.keys()
    if unknown:
        raise ValueError(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    sizes = QUICK if quick else FULL
    chosen = {name: scenario for name, scenario in SCENARIOS.items() if not names or name in names}
    machine = describe()
    for line in machine:
        print(line, file=sys.stderr)
    tq, floor = _measure(chosen, sizes)
    table = rows(tq, floor)
    print_table(table)
    date = datetime.now(UTC).date().isoformat()
    is_whole = not quick and not names
    if output is not None or is_whole:
        text = document(table, machine, sizes, date, life.FRAMES_IN_FLIGHT)
        (output or DOCUMENT).write_text(text, encoding="utf-8")
    if output is None and is_whole:
        readme = README.read_text(encoding="utf-8")
        README.write_text(with_figures(readme, table, machine, date), encoding="utf-8")
    return EXIT_OK


def _measure(scenarios: dict[str, Scenario], sizes: Sizes) -> tuple[list[Measured], list[Measured]]:
    """Return what was measured of the product and of the floor."""
    tq: list[Measured] = []
    floor: list[Measured] = []
    for pair in range(sizes.pairs):
        for name, scenario in scenarios.items():
            print(f"pair {pair + 1} of {sizes.pairs}: {name}", file=sys.stderr)
            floor.append(_run(scenario.floor, sizes))
            tq.append(_run(scenario.tq, sizes))
    return tq, floor


def _run(measure: Measure, sizes: Sizes) -> Measured:
    async def measured() -> Measured:
        return await measure(sizes)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measured())


def main() -> int:
    """Run the command line."""
    try:
        code = cli(sys.argv[1:])
    except (CycloptsError, ValueError) as error:
        print(f"{error}\nTry --help.", file=sys.stderr)
        return EXIT_USAGE
    except (ProgramError, TaskQueueError, TimeoutError) as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    return code if isinstance(code, int) else EXIT_OK


sys.exit(main())
