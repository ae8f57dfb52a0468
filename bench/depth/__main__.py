"""The program: fills brokers in several shapes and reports what that costs.

0    all was measured, and is done by the budget
1    a broker or a worker failed, or what tasks in queues cost is beyond a bound
2    the command line is wrong
130  interrupted; no program is left behind
"""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import uvloop
from cyclopts import App, CycloptsError, Parameter

from bench.depth.budget import BUDGET, below_bound, verdicts
from bench.depth.measure import Depth, measure
from bench.depth.shapes import SHAPES
from bench.environments import ROOT
from bench.machine import describe
from bench.tables import Table
from tq.testing.programs import ProgramError

DOCUMENT = ROOT / "docs" / "depth.md"
_METHOD = Path(__file__).with_name("method.md")

cli = App(
    name="python -m bench.depth",
    help="Measure tq with millions of tasks queued, waiting for a retry, or kept; a whole run writes docs/depth.md.",
    help_format="plaintext",
    version_flags=[],
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)


@cli.default
def depth(
    *,
    tasks: Annotated[int, Parameter(help="How many tasks are queued.")] = 10_000_000,
    held: Annotated[int, Parameter(help="How many wait for a retry, or have their result kept.")] = 1_000_000,
    shape: Annotated[str, Parameter(help=f"Shapes, parted by commas: {', '.join(SHAPES)}. [default: all]")] = "",
    json: Annotated[bool, Parameter(help="Print one JSON document, not a table.", negative="")] = False,
    output: Annotated[Path | None, Parameter(help="Where to write. [default: docs/depth.md, of all shapes]")] = None,
) -> int:
    """Run the measurements; see the module's docstring for what is returned."""
    names = [word.strip() for word in shape.split(",") if word.strip()]
    if unknown := set(names).difference(SHAPES):
        raise ValueError(f"there is no shape {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    is_of = describe(["tq"])
    machine = [is_of.cpu, is_of.system, is_of.python, is_of.libraries, is_of.disk, is_of.load]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        chosen = [SHAPES[name] for name in names or SHAPES]
        found = [runner.run(measure(one, tasks if one.holds == "queue" else held)) for one in chosen]
    print(msgspec.json.encode(found).decode()) if json else _table(found).print()
    path = output or (None if names else DOCUMENT)
    if path is not None:
        path.write_text(document(found, machine), encoding="utf-8")
    below = below_bound(found)
    if below:
        print(f"below the bound: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


def document(found: list[Depth], machine: list[str]) -> str:
    """Return what was *found* as a page."""
    date = datetime.now(UTC).date().isoformat()
    facts = "\n".join(f"- {line}" for line in (f"measured on {date}", *machine))
    return _METHOD.read_text(encoding="utf-8").format(facts=facts, table=_table(found).markdown())


def _table(found: list[Depth]) -> Table:
    columns = (
        "shape", "tasks", "enqueue/s empty, deep", "drain/s empty, deep", "RSS MiB empty, deep, peak",
        "restart s empty, deep", "restore s", "disk MiB deep, left", "reclaimed s", *(line.title for line in BUDGET),
    )  # fmt: skip
    return Table("What depth costs", columns, [_cells(one) for one in found])


def _cells(one: Depth) -> list[str]:
    return [
        one.shape,
        f"{one.tasks:,}",
        f"{one.enqueue_empty:,.0f}, {one.enqueue_deep:,.0f}",
        f"{one.drain_empty:,.0f}, {one.drain_deep:,.0f}",
        f"{one.rss_empty_mib:.0f}, {one.rss_deep_mib:.0f}, {one.rss_peak_mib:.0f}",
        f"{one.restart_empty_s:.2f}, {one.restart_deep_s:.2f}",
        f"{one.restore_s:.3f}",
        f"{one.disk_deep_mib:,.0f}, {one.disk_left_mib:,.0f}",
        "never" if one.reclaimed_s is None else f"{one.reclaimed_s:.1f}",
        *verdicts(one),
    ]


def main() -> int:
    """Run the command line."""
    try:
        code = cli(sys.argv[1:])
    except (CycloptsError, ValueError) as error:
        print(f"{error}\nTry --help.", file=sys.stderr)
        return 2
    except ProgramError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
