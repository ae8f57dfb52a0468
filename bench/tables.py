"""The tables: what was measured as cells, the same for the terminal and for Markdown."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable

from bench.figures import MEASURES, Results, Row

_TEXTS = {"figure", "unit", "verdict", "system"}
_WIDTH = 120

FIGURE_COLUMNS = ("figure", "unit", "tq", "floor", "ratio", "target", "bound", "verdict")
BRIEF_COLUMNS = FIGURE_COLUMNS[:5]

GLANCE = ("one", "bulk", "drain", "both", "result_p50")
PEER_TABLES = (
    ("Enqueue", ("one", "hundred", "bulk")),
    ("Drain", ("drain", "drain_two", "drain_threads", "drain_processes")),
    ("Both at once, and the CPU of each part for one task", ("both", "cpu_server", "cpu_worker", "cpu_client")),
    ("Latency at 100 tasks a second", ("start_p50", "start_p99", "result_p50", "result_p99")),
)


class Table(NamedTuple):
    """A title, the names of columns, and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return it as Markdown, without the title."""
        rule = ["---" if name in _TEXTS else "---:" for name in self.columns]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows))

    def print(self) -> None:
        """Print it to standard output."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH)
        table = RichTable(title=self.title, box=SIMPLE, title_justify="left")
        for name in self.columns:
            is_text = name in _TEXTS
            table.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
        for cells in self.rows:
            table.add_row(*cells)
        console.print(table)


def of_figures(rows: list[Row], columns: Sequence[str] = FIGURE_COLUMNS) -> Table:
    """Return tq beside the floor."""
    lines = [dict(zip(FIGURE_COLUMNS, _cells(row), strict=True)) for row in rows]
    return Table("tq beside the floor", columns, [[line[name] for name in columns] for line in lines])


def of_subjects(title: str, results: Results, measures: Sequence[str]) -> Table:
    """Return measures of all subjects; a subject that has none of them has no row."""
    columns = ["system", *(f"{MEASURES[name].title}, {MEASURES[name].unit.value}" for name in measures)]
    rows = []
    for subject in results.subjects:
        cells = [MEASURES[name].unit.spell(results.value(subject, name)) for name in measures]
        if any(cells):
            rows.append([subject.title, *cells])
    return Table(title, columns, rows)


def peer_tables(results: Results) -> list[Table]:
    """Return the tables of all subjects that have rows."""
    tables = [of_subjects(title, results, measures) for title, measures in PEER_TABLES]
    return [table for table in tables if table.rows]


def _cells(row: Row) -> tuple[str, ...]:
    figure, ratio = row.figure, row.ratio
    spell = figure.unit.spell
    return (
        figure.title,
        figure.unit.value,
        spell(row.tq),
        spell(row.floor),
        "" if ratio is None else f"{ratio:.2f}",
        spell(figure.target),
        spell(figure.bound),
        row.verdict,
    )
