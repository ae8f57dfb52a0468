"""The figures in README.md are those of docs/benchmarks.md: `python -m bench` writes both."""

from pathlib import Path

from bench.figures import FIGURES

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("<!-- figures -->", "<!-- /figures -->")


def rows(text: str) -> list[list[str]]:
    """The first five cells of the rows that are about a figure."""
    titles = {figure.title for figure in FIGURES}
    cells = [[cell.strip() for cell in line.strip("|").split("|")][:5] for line in text.splitlines()]
    return [row for row in cells if row[0] in titles]


def test_the_readme_has_the_figures_of_the_last_measurement() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    benchmarks = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    _, _, rest = readme.partition(MARKS[0])
    section, _, _ = rest.partition(MARKS[1])

    assert rows(benchmarks)
    assert rows(section) == rows(benchmarks)
