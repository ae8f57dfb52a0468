"""The report: the table on the terminal, docs/benchmarks.md, and the figures in README.md.

Invariant: README.md holds figures of docs/benchmarks.md, between its two marks, and no others.
"""

from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.figures import Row, Sizes
from bench.machine import Machine

_ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = _ROOT / "docs" / "benchmarks.md"
README = _ROOT / "README.md"
MARKS = ("<!-- figures -->\n", "<!-- /figures -->\n")

_HEADER = ("figure", "unit", "tq", "floor", "ratio", "target", "bound", "verdict")
_BRIEF = ("figure", "unit", "tq", "floor", "ratio")
_TEXTS = {"figure", "unit", "verdict"}
_WIDTH = 120

_METHOD = """\
`make bench` measures this and writes this file. All processes run on this machine, on loopback: the
program that measures (the real client library, on uvloop), one `tq-broker` with its data on disk, and,
where tasks are run, one `tq-worker` with its defaults, whose handler is an `async def` that does nothing.
A task takes a number and 80 characters. Each scenario starts with new processes and an empty store, and is
run as a pair with the floor; pairs in all: {pairs}. The table has medians. The ratio is tq's value over the
floor's; a figure worse than its bound counts as not done.

The floor (`bench/floor.py`) is a bare broker of sockets, MessagePack and RocksDB, with fsync before it
answers, as the product: no names, states, retries, expiring leases, results, limits or checks. What the
product needs beyond it is what its semantics cost. A task costs the floor one row written and one deleted, a
delivery one row.

- **bulk enqueue**: {bulk:,} tasks by `enqueue_many`, 500 a call, {flight} calls at a time, no worker.
- **drain**: these tasks, from the resume of their queue until the broker counts the last as completed.
- **broker CPU a task life**: what the broker's main thread used for both of these (`/proc/PID/task/PID/stat`),
  divided by the tasks.
- **enqueue and drain at once**: {both:,} tasks, from the first enqueue until the last is completed.
- **callers**: each enqueues one task, waits until it is durable, and enqueues the next: one caller {one:,},
  a hundred callers {hundred:,} tasks.
- **latency**: {latency:,} tasks, 100 a second. The floor's worker is in the process that enqueues.

Durability is `sync` (fsync before anything is acknowledged) where nothing else is said; `interval` syncs
every 50 ms."""


def print_table(rows: list[Row]) -> None:
    """Print the table to standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    table = Table(title="tq beside the floor", box=SIMPLE)
    for name in _HEADER:
        is_text = name in _TEXTS
        table.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)


def document(rows: list[Row], machine: Machine, sizes: Sizes, date: str, frames_in_flight: int) -> str:
    """Return docs/benchmarks.md."""
    method = _METHOD.format(**sizes._asdict(), flight=frames_in_flight)
    facts = "\n".join(f"- **{name}**: {text}" for name, text in zip(machine._fields, machine, strict=True))
    table = "\n".join(_line(cells) for cells in (_HEADER, _rule(), *(_cells(row) for row in rows)))
    singles = "\n".join(
        f"- {row.figure.title}: {_values(row, row.tq)}" + (f"; floor {_values(row, row.floor)}" if row.floor else "")
        for row in rows
    )
    return (
        f"# Benchmarks\n\nMeasured on {date}.\n\n{facts}\n\n## Figures\n\n{table}\n\n## Method\n\n{method}\n\n"
        f"## Single runs\n\n{singles}\n"
    )


def with_figures(readme: str, rows: list[Row], machine: Machine, date: str) -> str:
    """Return the text of README.md with the figures between its marks replaced."""
    before, opening, rest = readme.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    assert opening, "README.md has a place for the figures"
    assert closing, "README.md has an end of the figures"
    lines = [_line(_BRIEF), _line(tuple("---" if name in _TEXTS else "---:" for name in _BRIEF))]
    for row in rows:
        cells = dict(zip(_HEADER, _cells(row), strict=True))
        lines.append(_line(tuple(cells[name] for name in _BRIEF)))
    text = (
        f"{date}, {machine.cpu}, {machine.python},\n{machine.disk}.\n"
        "All processes on this machine, fsync before every acknowledgement unless a line says `interval`. The floor\n"
        "is a bare broker of the same libraries with no semantics. Method and single runs:\n"
        "[benchmarks](docs/benchmarks.md).\n"
    )
    return "".join([before, opening, text, "\n", "\n".join(lines), "\n", closing, after])


def _cells(row: Row) -> tuple[str, ...]:
    figure, ratio = row.figure, row.ratio
    return (
        figure.title,
        figure.unit.value,
        figure.spell(row.tq_median),
        figure.spell(row.floor_median),
        "" if ratio is None else f"{ratio:.2f}",
        figure.spell(figure.target),
        figure.spell(figure.bound),
        row.verdict,
    )


def _rule() -> tuple[str, ...]:
    return tuple("---" if name in _TEXTS else "---:" for name in _HEADER)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _values(row: Row, values: list[float]) -> str:
    return ", ".join(row.figure.spell(value) for value in values)
