"""The report: tables on the terminal or JSON, docs/benchmarks.md with its plot, and the figures in README.md.

Invariant: README.md holds figures of docs/benchmarks.md, between its two marks, and no others.
"""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench import environments
from bench.figures import MEASURES, Extent, Results, Unit, rows
from bench.machine import Machine
from bench.systems.catalog import SYSTEMS
from bench.systems.loads import FRAMES_IN_FLIGHT, PROCESSES, THREADS
from bench.tables import BRIEF_COLUMNS, GLANCE, of_figures, of_subjects, peer_tables

DOCUMENT = environments.ROOT / "docs" / "benchmarks.md"
README = environments.ROOT / "README.md"
MARKS = ("<!-- figures -->\n", "<!-- /figures -->\n")

_METHOD = Path(__file__).with_name("method.md")
_PLOT = Path(__file__).with_name("plot.py")
_PLOT_REQUIREMENTS = ("matplotlib>=3.9,<4",)


class Measurement(NamedTuple):
    """What was measured, where, how much of it, and when."""

    results: Results
    machine: Machine
    extent: Extent
    date: str


def print_tables(measurement: Measurement) -> None:
    """Print all tables to standard output."""
    if found := rows(measurement.results):
        of_figures(found).print()
    for table in peer_tables(measurement.results):
        table.print()
    for subject, failures in measurement.results.failures.items():
        print(f"not measured of {subject.title}: {'; '.join(failures)}")


def as_json(measurement: Measurement) -> str:
    """Return everything as one JSON document."""
    results = measurement.results
    document = {
        "date": measurement.date,
        "machine": measurement.machine._asdict(),
        "subjects": [{**subject._asdict(), "title": subject.title} for subject in results.subjects],
        "values": [
            {
                **subject._asdict(),
                "title": subject.title,
                "measure": name,
                "unit": measure.unit.value,
                "value": results.value(subject, name),
                "values": values,
            }
            for subject in results.subjects
            for name, measure in MEASURES.items()
            if (values := results.values(subject, name))
        ],
        "failures": {subject.title: failures for subject, failures in results.failures.items()},
    }
    return json.dumps(document, indent=1)


def write_document(measurement: Measurement, path: Path) -> None:
    """Write the Markdown document, and the plot beside it."""
    plot = path.with_suffix(".svg")
    python = environments.python_with("plot", _PLOT_REQUIREMENTS)
    subprocess.run([str(python), str(_PLOT), str(plot)], input=as_json(measurement), text=True, check=True)
    path.write_text(document(measurement, plot.name), encoding="utf-8")


def write_readme(measurement: Measurement) -> None:
    """Put the figures between the marks of README.md."""
    README.write_text(with_figures(README.read_text(encoding="utf-8"), measurement), encoding="utf-8")


def document(measurement: Measurement, plot: str) -> str:
    """Return docs/benchmarks.md."""
    results = measurement.results
    machine = measurement.machine
    sections = [
        "# Benchmarks",
        f"Measured on {measurement.date}.",
        "\n".join(f"- **{name}**: {text}" for name, text in zip(machine._fields, machine, strict=True)),
        "## Figures",
        of_figures(rows(results)).markdown(),
        "## Beside others",
        of_subjects("", results, GLANCE).markdown(),
        f"![Each system at each durability: rates, latency and CPU]({plot})",
        "Empty: the system has nothing like it, or it is the same as another column, as the method says.",
    ]
    for table in peer_tables(results):
        sections += [f"### {table.title}", table.markdown()]
    sections += ["## Method", _method(measurement.extent), "## Settings", _settings(results)]
    sections += _failures(results)
    sections += ["## Single runs", _single_runs(results)]
    return "\n\n".join(sections) + "\n"


def with_figures(readme: str, measurement: Measurement) -> str:
    """Return the text of README.md with the figures between its marks replaced."""
    before, opening, rest = readme.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    assert opening, "README.md has a place for the figures"
    assert closing, "README.md has an end of the figures"
    machine, results = measurement.machine, measurement.results
    text = (
        f"{measurement.date}, {machine.cpu}, {machine.python},\n{machine.disk}.\n"
        "All processes on this machine, fsync before every acknowledgement unless a line says `interval` or\n"
        "`everysec`. The floor is a bare broker of the same libraries with no semantics. Method, settings, more\n"
        "figures and single runs: [benchmarks](docs/benchmarks.md)."
    )
    parts = [text, of_figures(rows(results), BRIEF_COLUMNS).markdown(), of_subjects("", results, GLANCE).markdown()]
    return "".join([before, opening, "\n\n".join(parts), "\n", closing, after])


def _method(extent: Extent) -> str:
    sizes = {
        f"{pace}_{name}": f"{value:,}"
        for pace, of_pace in extent.sizes.items()
        for name, value in of_pace._asdict().items()
    }
    text = _METHOD.read_text(encoding="utf-8").partition("\n")[2].strip()
    return text.format(**sizes, rounds=extent.rounds, flight=FRAMES_IN_FLIGHT, threads=THREADS, processes=PROCESSES)


def _settings(results: Results) -> str:
    names = dict.fromkeys(subject.system for subject in results.subjects)
    return "\n".join(f"- **{SYSTEMS[name].title}**: {SYSTEMS[name].settings}." for name in names)


def _failures(results: Results) -> list[str]:
    if not results.failures:
        return []
    lines = [f"- {subject.title}: {'; '.join(failures)}" for subject, failures in results.failures.items()]
    return ["## Not measured", "\n".join(lines)]


def _single_runs(results: Results) -> str:
    lines = []
    for subject in results.subjects:
        lines.append(f"- **{subject.title}**")
        for name, measure in MEASURES.items():
            if values := results.values(subject, name):
                spelled = ", ".join(measure.unit.spell(value) for value in values)
                unit = "" if measure.unit is Unit.RATE else f", {measure.unit.value}"
                lines.append(f"  - {name}{unit}: {spelled}")
    return "\n".join(lines)
