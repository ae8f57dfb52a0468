"""The figures: what is measured, in which unit, and what was aimed at."""

from enum import Enum
from statistics import median
from typing import NamedTuple


class Unit(Enum):
    """What a figure counts; of rates more is better, of times less."""

    RATE = "tasks/s"
    CPU = "us"
    LATENCY = "ms"


class Figure(NamedTuple):
    """One row of the table.  ``target`` is what is aimed at; worse than ``bound`` is not done."""

    title: str
    unit: Unit
    target: float | None = None
    bound: float | None = None

    def meets(self, value: float, mark: float) -> bool:
        """Tell whether *value* is at least as good as *mark*."""
        return value >= mark if self.unit is Unit.RATE else value <= mark

    def spell(self, value: float | None) -> str:
        """Return *value* for a reader."""
        if value is None:
            return ""
        return f"{value:,.0f}" if self.unit is Unit.RATE else f"{value:.2f}"


FIGURES: dict[str, Figure] = {
    "bulk": Figure("bulk enqueue, frames of 500", Unit.RATE, 150_000, 90_000),
    "drain": Figure("drain, one worker process", Unit.RATE, 100_000, 60_000),
    "drain_kept": Figure("drain, results kept", Unit.RATE),
    "both": Figure("enqueue and drain at once", Unit.RATE, 50_000, 30_000),
    "one": Figure("one caller at a time", Unit.RATE, 1_600, 1_200),
    "one_blocking": Figure("one caller at a time, blocking client", Unit.RATE),
    "hundred": Figure("100 callers", Unit.RATE, 25_000, 15_000),
    "life": Figure("broker CPU a task life, result off", Unit.CPU, 12, 20),
    "life_kept": Figure("broker CPU a task life, result kept", Unit.CPU, 15, 25),
    "start_p50": Figure("enqueue to handler start, p50", Unit.LATENCY, 1.2, 2),
    "start_p99": Figure("enqueue to handler start, p99", Unit.LATENCY, 3, 6),
    "result_p50": Figure("enqueue to result at the caller, p50", Unit.LATENCY),
    "result_p99": Figure("enqueue to result at the caller, p99", Unit.LATENCY),
    "one_interval": Figure("one caller at a time, interval", Unit.RATE, 12_000, 6_000),
    "start_p50_interval": Figure("enqueue to handler start, p50, interval", Unit.LATENCY, 0.5, 1),
}


class Sizes(NamedTuple):
    """How much each scenario does."""

    bulk: int
    both: int
    one: int
    hundred: int
    latency: int
    pairs: int


FULL = Sizes(bulk=200_000, both=150_000, one=3_000, hundred=20_000, latency=1_000, pairs=3)
QUICK = Sizes(bulk=20_000, both=20_000, one=300, hundred=3_000, latency=150, pairs=1)

Measured = dict[str, float]
"""Values by the keys of `FIGURES`."""


class Row(NamedTuple):
    """A figure with the medians of what was measured, and all single values."""

    figure: Figure
    tq: list[float]
    floor: list[float]

    @property
    def tq_median(self) -> float:
        """The product's value."""
        return median(self.tq)

    @property
    def floor_median(self) -> float | None:
        """The floor's value; None where the floor has nothing like it."""
        return median(self.floor) if self.floor else None

    @property
    def ratio(self) -> float | None:
        """How much of the floor's rate, or how many times its time."""
        floor = self.floor_median
        return self.tq_median / floor if floor else None

    @property
    def verdict(self) -> str:
        """Where the value stands."""
        figure, value = self.figure, self.tq_median
        if figure.target is None or figure.bound is None:
            return ""
        if figure.meets(value, figure.target):
            return "on target"
        return "done" if figure.meets(value, figure.bound) else "below the bound"


def rows(tq: list[Measured], floor: list[Measured]) -> list[Row]:
    """Return the table of what was measured, in the order of `FIGURES`."""
    found = [
        Row(figure, [run[key] for run in tq if key in run], [run[key] for run in floor if key in run])
        for key, figure in FIGURES.items()
    ]
    return [row for row in found if row.tq]
