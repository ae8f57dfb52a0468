"""The plot: reads a measurement as JSON from standard input and writes it as SVG; runs where matplotlib is.

    python bench/plot.py docs/benchmarks.svg < measurement.json

Points, not bars: the axes are logarithmic, on which the length of a bar says nothing.
Every point has its value beside it; what a subject does not have has no point.
"""

import json
import sys
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

PANELS = (
    ("one", "One caller, tasks/s (right is better)"),
    ("bulk", "Bulk enqueue, tasks/s (right is better)"),
    ("drain", "Drain by one worker process, tasks/s (right is better)"),
    ("both", "Enqueue and drain at once, tasks/s (right is better)"),
    ("result_p50", "Enqueue to result, p50, ms (left is better)"),
    ("cpu_server", "CPU of the server a task, us (left is better)"),
)
COLUMNS = 2
OWN = {"tq": "#1a5fb4", "floor": "#5e5c64"}
PEER = "#c64600"


def main(path: str, measurement: dict[str, Any]) -> None:
    """Draw the panels that have values."""
    # Text stays text, ids do not change from run to run, and no date makes each file another one.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tq", "font.size": 8})
    subjects = [(each["system"], each["title"]) for each in measurement["subjects"]]
    values = {(each["title"], each["measure"]): each["value"] for each in measurement["values"]}
    panels = [panel for panel in PANELS if any(measure == panel[0] for _, measure in values)]
    if not panels:
        raise SystemExit("nothing of what was measured is in the plot")
    lines = -(-len(panels) // COLUMNS)
    figure, axes = pyplot.subplots(
        lines, COLUMNS, figsize=(11, lines * (0.6 + 0.19 * len(subjects))), squeeze=False, layout="constrained"
    )
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, (measure, title) in zip(axes.flat, panels, strict=False):
        draw(place, title, subjects, {name: values.get((name, measure)) for _, name in subjects})
    figure.savefig(path, format="svg", metadata={"Date": None})


def draw(axes: Axes, title: str, subjects: list[tuple[str, str]], values: dict[str, float | None]) -> None:
    """Draw one panel, a line for each subject."""
    axes.set_title(title, loc="left")
    axes.set_xscale("log")
    axes.set_yticks(range(len(subjects)), [name for _, name in subjects])
    axes.set_ylim(len(subjects) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for place, (system, name) in enumerate(subjects):
        value = values[name]
        if value is not None:
            axes.plot(value, place, "o", markersize=5, color=OWN.get(system, PEER))
            text = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
            axes.annotate(text, (value, place), (6, 0), textcoords="offset points", va="center")
    # Room for the value beside the point that is furthest right.
    left, right = axes.get_xlim()
    axes.set_xlim(left, right * (right / left) ** 0.25)


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
