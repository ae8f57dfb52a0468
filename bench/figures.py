"""The figures: what is measured, in which unit, what was aimed at, and what came out for whom.

A scenario returns `Measured` of one subject; `Results` holds those of all rounds, and pools their times.  A
`Measure` is one of their keys for every subject, a `Figure` a row of the table of tq beside the floor.
"""

from collections import defaultdict
from collections.abc import Mapping
from enum import Enum
from statistics import median, quantiles
from typing import NamedTuple

from bench.systems.catalog import SYSTEMS, Pace, Subject

TQ = Subject("tq", "sync")
TQ_INTERVAL = Subject("tq", "interval")
FLOOR = Subject("floor", "sync")

ON_TARGET, DONE, BELOW_BOUND = "on target", "done", "below the bound"
"""The verdicts."""

Measured = Mapping[str, float | list[float]]
"""Values by the keys of `MEASURES`; lists of single times by those of `PERCENTILES`."""


class Unit(Enum):
    """What a figure counts; of rates more is better, of times less."""

    RATE = "tasks/s"
    CPU = "us"
    LATENCY = "ms"

    def spell(self, value: float | None) -> str:
        """Return *value* for a reader."""
        if value is None:
            return ""
        return f"{value:,.0f}" if self is Unit.RATE else f"{value:.2f}"


class Measure(NamedTuple):
    """What is measured of each subject that has it."""

    title: str
    unit: Unit


MEASURES: dict[str, Measure] = {
    "one": Measure("one caller", Unit.RATE),
    "hundred": Measure("100 callers", Unit.RATE),
    "bulk": Measure("bulk", Unit.RATE),
    "one_blocking": Measure("one caller, blocking client", Unit.RATE),
    "drain": Measure("1 process", Unit.RATE),
    "drain_two": Measure("2 processes", Unit.RATE),
    "drain_threads": Measure("thread pool", Unit.RATE),
    "drain_processes": Measure("process pool", Unit.RATE),
    "drain_kept": Measure("1 process, results kept", Unit.RATE),
    "both": Measure("both at once", Unit.RATE),
    "cpu_server": Measure("server", Unit.CPU),
    "cpu_worker": Measure("worker", Unit.CPU),
    "cpu_client": Measure("client", Unit.CPU),
    "life": Measure("server's main thread", Unit.CPU),
    "life_kept": Measure("server's main thread, results kept", Unit.CPU),
    "start_p50": Measure("start p50", Unit.LATENCY),
    "start_p99": Measure("start p99", Unit.LATENCY),
    "result_p50": Measure("result p50", Unit.LATENCY),
    "result_p99": Measure("result p99", Unit.LATENCY),
}


PERCENTILES = {
    "start": {"start_p50": 50, "start_p99": 99},
    "result": {"result_p50": 50, "result_p99": 99},
}
"""The measures that are percentiles of single times: those of all rounds together, as a p99 needs many."""


class Figure(NamedTuple):
    """One row of the table.  ``target`` is what is aimed at; worse than ``bound`` is not done."""

    title: str
    measure: str
    target: float | None = None
    bound: float | None = None
    subject: Subject = TQ

    @property
    def unit(self) -> Unit:
        """What it counts."""
        return MEASURES[self.measure].unit

    def meets(self, value: float, mark: float) -> bool:
        """Tell whether *value* is at least as good as *mark*."""
        return value >= mark if self.unit is Unit.RATE else value <= mark


FIGURES = (
    Figure("bulk enqueue, frames of 500", "bulk", 150_000, 90_000),
    Figure("drain, one worker process", "drain", 100_000, 60_000),
    Figure("drain, two worker processes", "drain_two"),
    Figure("drain, results kept", "drain_kept"),
    Figure("enqueue and drain at once", "both", 50_000, 30_000),
    Figure("one caller at a time", "one", 1_600, 1_200),
    Figure("one caller at a time, blocking client", "one_blocking"),
    Figure("100 callers", "hundred", 25_000, 15_000),
    Figure("broker CPU a task life, result off", "life", 12, 20),
    Figure("broker CPU a task life, result kept", "life_kept", 15, 25),
    Figure("enqueue to handler start, p50", "start_p50", 1.2, 2),
    Figure("enqueue to handler start, p99", "start_p99", 3, 6),
    Figure("enqueue to result at the caller, p50", "result_p50"),
    Figure("enqueue to result at the caller, p99", "result_p99"),
    Figure("one caller at a time, interval", "one", 12_000, 6_000, TQ_INTERVAL),
    Figure("enqueue to handler start, p50, interval", "start_p50", 0.5, 1, TQ_INTERVAL),
)


class Sizes(NamedTuple):
    """How many tasks each scenario has."""

    bulk: int
    pools: int
    both: int
    one: int
    hundred: int
    latency: int


class Extent(NamedTuple):
    """How much is measured: rounds, and the sizes of a round by how fast a system is."""

    rounds: int
    sizes: dict[Pace, Sizes]

    def of(self, subject: Subject) -> Sizes:
        """Return the sizes for a subject."""
        return self.sizes[SYSTEMS[subject.system].pace]


FULL = Extent(
    3,
    {
        Pace.FAST: Sizes(bulk=200_000, pools=40_000, both=150_000, one=3_000, hundred=20_000, latency=500),
        Pace.MIDDLE: Sizes(bulk=20_000, pools=20_000, both=20_000, one=3_000, hundred=6_000, latency=300),
        Pace.SLOW: Sizes(bulk=4_000, pools=3_000, both=3_000, one=2_000, hundred=4_000, latency=300),
    },
)
QUICK = Extent(
    1,
    {
        Pace.FAST: Sizes(bulk=20_000, pools=5_000, both=20_000, one=300, hundred=3_000, latency=100),
        Pace.MIDDLE: Sizes(bulk=2_000, pools=2_000, both=2_000, one=300, hundred=1_000, latency=50),
        Pace.SLOW: Sizes(bulk=500, pools=500, both=500, one=200, hundred=300, latency=50),
    },
)


class Results:
    """The values of all rounds, and what could not be measured; filled in as it is measured."""

    def __init__(self) -> None:
        self._values: dict[tuple[Subject, str], list[float]] = defaultdict(list)
        self._pooled: dict[tuple[Subject, str], list[float]] = defaultdict(list)
        self.failures: dict[Subject, list[str]] = defaultdict(list)

    def add(self, subject: Subject, measured: Measured) -> None:
        """Take what one scenario of one round gave."""
        for key, value in measured.items():
            if not isinstance(value, list):
                self._values[subject, key].append(value)
                continue
            for name, percent in PERCENTILES[key].items():
                self._values[subject, name].append(_percentile(value, percent))
            self._pooled[subject, key] += value

    def fail(self, subject: Subject, scenario: str, why: str) -> None:
        """Note that a scenario could not be measured."""
        self.failures[subject].append(f"{scenario}: {why}")

    def values(self, subject: Subject, measure: str) -> list[float]:
        """Return the single values, in the order of the rounds."""
        return self._values.get((subject, measure), [])

    def value(self, subject: Subject, measure: str) -> float | None:
        """Return the percentile of the times of all rounds, or the median of the rounds; None of nothing."""
        for key, percents in PERCENTILES.items():
            if measure in percents and (times := self._pooled.get((subject, key))):
                return _percentile(times, percents[measure])
        values = self.values(subject, measure)
        return median(values) if values else None

    @property
    def subjects(self) -> list[Subject]:
        """Whose values there are, in the order of the catalog."""
        present = {subject for subject, _ in self._values} | self.failures.keys()
        every = [Subject(name, durability) for name, system in SYSTEMS.items() for durability in system.durabilities]
        return [subject for subject in every if subject in present]


def verdict(*, on_target: bool, done: bool) -> str:
    """Return where a value stands that is at least as good as its target, or else as its bound."""
    if on_target:
        return ON_TARGET
    return DONE if done else BELOW_BOUND


class Row(NamedTuple):
    """A figure, the product's value, and the floor's; None where the floor has nothing like it."""

    figure: Figure
    tq: float
    floor: float | None

    @property
    def ratio(self) -> float | None:
        """How much of the floor's rate, or how many times its time."""
        return self.tq / self.floor if self.floor else None

    @property
    def verdict(self) -> str:
        """Where the value stands."""
        figure, value = self.figure, self.tq
        if figure.target is None or figure.bound is None:
            return ""
        return verdict(on_target=figure.meets(value, figure.target), done=figure.meets(value, figure.bound))


def rows(results: Results) -> list[Row]:
    """Return the table of tq beside the floor, in the order of `FIGURES`."""
    found = []
    for figure in FIGURES:
        # The floor has fsync always; nothing of it compares with another durability.
        floor = results.value(FLOOR, figure.measure) if figure.subject == TQ else None
        value = results.value(figure.subject, figure.measure)
        if value is not None:
            found.append(Row(figure, value, floor))
    return found


def below_bound(results: Results) -> list[str]:
    """Return the titles of the figures that count as not done."""
    return [row.figure.title for row in rows(results) if row.verdict == BELOW_BOUND]


def _percentile(times: list[float], percent: int) -> float:
    return quantiles(times, n=100, method="inclusive")[percent - 1]
