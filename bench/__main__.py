"""The program: measures tq, the floor of this machine and the peers, and reports.

0    all was measured, and is done
1    something was not measured, as a program did not do what it must or a peer cannot be had;
     or a figure of tq is below its bound, which a run with --quick is too short to say
2    the command line is wrong
130  interrupted, by SIGINT or SIGTERM; no program is left behind
"""

import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Never

from cyclopts import App, CycloptsError, Parameter

from bench import report
from bench.environments import NotToBeHadError
from bench.figures import FULL, QUICK, Extent, Results, below_bound
from bench.machine import describe
from bench.run import SCENARIOS, measure, prepare
from bench.systems.catalog import SYSTEMS
from tq.testing.programs import ProgramError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

cli = App(
    name="python -m bench",
    help="Measure tq beside the floor of this machine and its peers; a whole run writes docs/benchmarks.md, its plot "
    "and the figures in README.md.",
    help_format="plaintext",
    version_flags=[],
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


@cli.default
def bench(
    *,
    only: Annotated[str, Parameter(help=f"Systems, parted by commas: {', '.join(SYSTEMS)}. [default: all]")] = "",
    scenario: Annotated[
        str, Parameter(help=f"Scenarios, parted by commas: {', '.join(SCENARIOS)}. [default: all]")
    ] = "",
    quick: Annotated[bool, Parameter(help="A short run, which writes no documents.", negative="")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON document, not tables.", negative="")] = False,
    output: Annotated[
        Path | None, Parameter(help="Where to write. [default: docs/benchmarks.md, of a whole run]")
    ] = None,
) -> int:
    """Run the measurements; see the module's docstring for what is returned."""
    systems = _chosen(only, SYSTEMS, "system")
    scenarios = _chosen(scenario, SCENARIOS, "scenario")
    extent = QUICK if quick else FULL
    prepare(systems)
    machine = describe(systems)
    for line in machine:
        print(line, file=sys.stderr)
    results = measure(systems, scenarios, extent)
    measurement = report.Measurement(results, machine, extent, datetime.now(UTC).date().isoformat())
    print(report.as_json(measurement)) if json else report.print_tables(measurement)
    is_whole = not (quick or only or scenario)
    if output is not None or is_whole:
        report.write_document(measurement, output or report.DOCUMENT)
    if output is None and is_whole:
        report.write_readme(measurement)
    return exit_code(results, extent)


def exit_code(results: Results, extent: Extent) -> int:
    """Return the exit code of a run, and say which figures are below their bounds."""
    below = [] if extent is QUICK else below_bound(results)
    if below:
        print(f"below the bound: {'; '.join(below)}", file=sys.stderr)
    return EXIT_FAILED if below or results.failures else EXIT_OK


def _chosen(words: str, known: Iterable[str], what: str) -> list[str]:
    """Return the names in *words*, all that are *known* if there are none, in the order of these."""
    known = list(known)
    names = {word.strip() for word in words.split(",") if word.strip()}
    if unknown := names.difference(known):
        raise ValueError(f"there is no {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [name for name in known if not names or name in names]


def _interrupt(_number: int, _frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli(sys.argv[1:])
    except (CycloptsError, ValueError) as error:
        print(f"{error}\nTry --help.", file=sys.stderr)
        return EXIT_USAGE
    except (NotToBeHadError, ProgramError) as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
