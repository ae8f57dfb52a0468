"""The budget of a deep broker: what it may cost that millions of tasks are queued.

It is for tasks in queues; those that wait for a retry, or are done and kept, are measured and not judged.
"""

from collections.abc import Callable
from typing import NamedTuple

from bench.depth.measure import Depth
from bench.figures import BELOW_BOUND, verdict

_MB_IN_MIB = 1_000_000 / (1 << 20)


class Line(NamedTuple):
    """One line of the budget; more than ``target`` is not what is aimed at, more than ``bound`` is not done."""

    title: str
    cost: Callable[[Depth], float]
    target: float
    bound: float

    def verdict(self, found: Depth) -> str:
        """Return where a shape stands."""
        cost = self.cost(found)
        return verdict(on_target=cost <= self.target, done=cost <= self.bound)


def _lost(found: Depth) -> float:
    """Return the share of the slower rate that depth costs."""
    return 1 - min(found.enqueue_deep / found.enqueue_empty, found.drain_deep / found.drain_empty)


BUDGET = (
    Line("memory", lambda found: found.rss_peak_mib, 400 * _MB_IN_MIB, 800 * _MB_IN_MIB),
    Line("rates", _lost, 0.10, 0.30),
    Line("restart", lambda found: found.restart_deep_s, 2.0, 5.0),
)


def verdicts(found: Depth) -> list[str]:
    """Return where a shape stands, a line of the budget each; nothing of a shape that is not judged."""
    return [line.verdict(found) for line in BUDGET] if found.holds == "queue" else [""] * len(BUDGET)


def below_bound(found: list[Depth]) -> list[str]:
    """Return which lines of which shapes count as not done."""
    return [
        f"{line.title} of {one.shape}"
        for one in found
        for line, stands in zip(BUDGET, verdicts(one), strict=True)
        if stands == BELOW_BOUND
    ]
