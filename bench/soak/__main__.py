"""`make soak`: a long load under accidents, then a table of what has grown, and a verdict.

    python -m bench.soak                             a million tasks
    python -m bench.soak --tasks 5000000             the long form
    python -m bench.soak --tasks 200000 --json       the verdict as one JSON document

Logs and samples are kept in .soak/.  Exit code 1 where a promise is broken or something grows.
"""

import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.soak.load import Broken
from bench.soak.run import Plan, Soak
from bench.soak.verdict import Finding, judge
from tq.testing.programs import ProgramError

_FOLDER = Path(".soak")
_TASKS = 1_000_000
# A verdict needs some dozens of samples, of a short run too.
_SHORT_TASKS = 500_000


def main(words: Sequence[str] | None = None) -> int:
    """Run a soak as *words* ask for; return the exit code."""
    parser = ArgumentParser(prog="python -m bench.soak", description="Load a real broker for long, and see what grows.")
    parser.add_argument("--tasks", type=int, default=_TASKS, help=f"how many (default {_TASKS:,})")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where logs and samples go; it is emptied first")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    asked = parser.parse_args(words)
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    soak = Soak(asked.folder, Plan(tasks=asked.tasks, sample_every_s=1.0 if asked.tasks < _SHORT_TASKS else 5.0))
    console = Console(stderr=asked.json)
    columns = TextColumn("tasks"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("tasks", total=asked.tasks)
            soak.run(lambda ended: progress.update(bar, completed=ended))
        findings = judge(soak.samples)
    except (Broken, ProgramError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    last = soak.samples[-1]
    verdict = all(each.holds for each in findings)
    if asked.json:
        document = {"verdict": verdict, "tasks": asked.tasks, "seconds": last.at_s, "findings": findings}
        print(msgspec.json.encode(document).decode())
    else:
        console.print(_table(findings))
        console.print(
            f"{asked.tasks:,} tasks in {last.at_s:.0f} s, {soak.accidents} workers killed or restarted, "
            f"the broker killed {soak.broker_kills} times, "
            f"each task in its one terminal state: {'passed' if verdict else 'FAILED: something grows'}"
        )
    return 0 if verdict else 1


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("measure", "unit", "before", "after", "bound", "holds")
    for each in findings:
        numbers = [f"{number:,.1f}" for number in (each.before, each.after, each.bound)]
        table.add_row(each.name, each.unit, *numbers, "yes" if each.holds else "NO")
    return table


if __name__ == "__main__":
    sys.exit(main())
