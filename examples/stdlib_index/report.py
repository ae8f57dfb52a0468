"""The report: a run as tables for people, or as one JSON document for programs."""

import os

import msgspec
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.stdlib_index.run import DeadLetter, Run
from examples.stdlib_index.sources import BROKEN, Sources
from examples.stdlib_index.totals import imported, overtaken, packages, totals

_TOP = 8
_SLOWEST = 5


def print_tables(console: Console, run: Run, sources: Sources, workers: int) -> None:
    """Print what was found, how long it took, what failed, and whether all was as it must be."""
    outcomes = run.queued.outcomes
    console.print(_summary(run))
    console.print(_packages(run, sources))
    console.print(_slowest(run, sources))
    modules = ", ".join(f"{name} {count:,}" for name, count in imported(outcomes).most_common(_TOP))
    console.print(f"Imported most: {modules}", highlight=False)
    console.print(_order(run, sources), highlight=False)
    console.print(_dead(run, sources), highlight=False)
    console.print(_times(run, workers), highlight=False)
    for difference in run.differences:
        console.print(Text(f"NOT AS IT MUST BE: {difference}", style="bold red"))
    if not run.differences:
        console.print("Both runs agree in every figure and every failure; broker and worker stopped with exit code 0.")


def as_json(run: Run, sources: Sources, workers: int) -> str:
    """Return the report as a JSON document."""
    outcomes = run.queued.outcomes
    document = {
        "tree": str(sources.tree),
        "bytes": sources.size_bytes,
        "workers": workers,
        "totals": totals(outcomes)._asdict(),
        "packages": [package._asdict() for package in packages(outcomes, sources)],
        "imports": dict(imported(outcomes).most_common()),
        "urgent_files": len(sources.urgent),
        "others_started_before_the_last_urgent_file": overtaken(outcomes, sources),
        "dead_letters": [
            {
                "id": letter.handle.id,
                "path": letter.path,
                "attempts": letter.attempts,
                "error": _error(letter),
                "traceback": letter.failure.traceback,
            }
            for letter in run.dead
        ],
        "enqueue_seconds": round(run.enqueue_seconds, 3),
        "queued_seconds": round(run.queued.seconds, 3),
        "sequential_seconds": round(run.sequential.seconds, 3),
        "differences": run.differences,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _summary(run: Run) -> Table:
    table = Table(title="The index")
    table.add_column("")
    for name in totals(run.queued.outcomes)._fields:
        table.add_column(name, justify="right")
    for title, timed in (("by tasks", run.queued), ("in sequence", run.sequential)):
        table.add_row(title, *(f"{number:,}" for number in totals(timed.outcomes)))
    return table


def _packages(run: Run, sources: Sources) -> Table:
    table = Table(title="Largest packages")
    table.add_column("package")
    for name in ("files", "lines", "functions", "classes"):
        table.add_column(name, justify="right")
    for package in packages(run.queued.outcomes, sources)[:_TOP]:
        table.add_row(package.name, *(f"{number:,}" for number in package[1:]))
    return table


def _slowest(run: Run, sources: Sources) -> Table:
    table = Table(title="Slowest files")
    table.add_column("file", overflow="fold")
    table.add_column("lines", justify="right")
    table.add_column("seconds", justify="right")
    files = sorted(run.queued.outcomes.indexed.values(), key=lambda file: -file.seconds)
    for file in files[:_SLOWEST]:
        table.add_row(os.path.relpath(file.path, sources.tree), f"{file.lines:,}", f"{file.seconds:.3f}")
    return table


def _order(run: Run, sources: Sources) -> str:
    if not sources.urgent:
        return "No package was named, so no file was urgent."
    names = ", ".join(sorted({sources.package_of(path) for path in sources.urgent}))
    ahead = overtaken(run.queued.outcomes, sources)
    return (
        f"First came {names}: {len(sources.urgent)} files of high priority, enqueued after {len(sources.others):,} "
        f"others, of which {ahead} started before the last of them."
    )


def _dead(run: Run, sources: Sources) -> Group:
    shipped = [letter for letter in run.dead if letter.path == str(BROKEN)]
    rest = [letter for letter in run.dead if letter.path != str(BROKEN)]
    lines = [Text(f"  {os.path.relpath(letter.path, sources.tree)}: {_error(letter)}") for letter in rest]
    title = Text(f"Dead letters: {len(run.dead)}; {len(rest)} of them for files of the tree that do not parse.")
    return Group(title, *lines, *map(_panel, shipped))


def _panel(letter: DeadLetter) -> Panel:
    text = Text(f"task {letter.handle.id}, {letter.attempts} attempts\n\n{letter.failure.traceback.rstrip()}")
    return Panel(text, title=f"The dead letter of {BROKEN.name}", title_align="left")


def _error(letter: DeadLetter) -> str:
    return f"{letter.failure.type}: {letter.failure.message}"


def _times(run: Run, workers: int) -> str:
    queued, sequential = run.queued.seconds, run.sequential.seconds
    count = totals(run.queued.outcomes).files
    return (
        f"{count:,} tasks enqueued, durably, in {run.enqueue_seconds:.2f} s; "
        f"run by {workers} processes in {queued:.2f} s, in sequence in {sequential:.2f} s: "
        f"{sequential / queued:.2f} times as fast on {os.cpu_count()} CPUs, retries included."
    )
