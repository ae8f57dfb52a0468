"""Samples of a soak, and what they say: what grows with time though the load does not.

Invariant: only samples are judged; nothing here measures.
"""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import msgspec

MIB = 1 << 20
_RSS_RATIO_MAX = 1.10
_LATENCY_RATIO_MAX = 1.25
# Tables are merged at their own times, and the log is cut when a table is written.
_DISK_RATIO_MAX = 1.2
_DISK_SLACK_BYTES = 128 * MIB
_HANDLES_SLACK = 32
_LOG_BYTES_BASE = MIB
_LOG_BYTES_AN_ACCIDENT = 4_096


class Sample(msgspec.Struct, frozen=True):
    """The broker at one moment: bytes, open handles, and the probes since the last sample.

    ``latency_ms`` is the median of those that came back, ``probes_failed`` how many did not, in time or as they should.
    """

    at_s: float
    tasks: int
    accidents: int
    rss: int
    handles: int
    disk: int
    wal: int
    log: int
    latency_ms: float | None
    probes_failed: int = 0


class Finding(msgspec.Struct, frozen=True):
    """One measure: before, after, the bound that holds for after, and whether it does."""

    name: str
    unit: str
    before: float
    after: float
    bound: float
    holds: bool


class _Quarters(NamedTuple):
    second: Sequence[Sample]
    last: Sequence[Sample]


def judge(samples: Sequence[Sample]) -> list[Finding]:
    """Compare the last quarter of *samples*, by their time, with the second.

    Raises:
        ValueError: There are not at least eight, or none has a latency in one of these quarters.
    """
    if len(samples) < 8:
        raise ValueError(f"a verdict needs at least 8 samples; got {len(samples)}: run longer, or sample more often")
    quarters = _quartered(samples)
    accidents = samples[-1].accidents
    log_bound = _LOG_BYTES_BASE + _LOG_BYTES_AN_ACCIDENT * accidents
    return [
        _rss(samples),
        _latency(quarters),
        _probes(samples),
        _most("handles", "", quarters, lambda each: each.handles, 1.0, _HANDLES_SLACK),
        _most("disk", "MiB", quarters, lambda each: each.disk / MIB, _DISK_RATIO_MAX, _DISK_SLACK_BYTES / MIB),
        _most("store's log", "MiB", quarters, lambda each: each.wal / MIB, _DISK_RATIO_MAX, _DISK_SLACK_BYTES / MIB),
        _finding("broker's log", "KiB", quarters.second[-1].log / 1_024, samples[-1].log / 1_024, log_bound / 1_024),
    ]


def _quartered(samples: Sequence[Sample]) -> _Quarters:
    first, last = samples[0].at_s, samples[-1].at_s
    quarter = (last - first) / 4
    second = [each for each in samples if first + quarter <= each.at_s < first + 2 * quarter]
    fourth = [each for each in samples if each.at_s >= first + 3 * quarter]
    return _Quarters(second, fourth)


def _rss(samples: Sequence[Sample]) -> Finding:
    """Compare the peak of the last quarter with that of the first half.

    RocksDB's buffer fills and is written away again and again: memory is a saw, of which only the
    peaks can be compared.  The first half has a peak also where the run is short.
    """
    first, last = samples[0].at_s, samples[-1].at_s
    before = max(each.rss for each in samples if each.at_s <= (first + last) / 2) / MIB
    after = max(each.rss for each in samples if each.at_s >= first + 0.75 * (last - first)) / MIB
    return _finding("memory, peak", "MiB", before, after, before * _RSS_RATIO_MAX)


def _latency(quarters: _Quarters) -> Finding:
    before, after = (
        [each.latency_ms for each in quarter if each.latency_ms is not None]
        for quarter in (quarters.second, quarters.last)
    )
    if not before or not after:
        raise ValueError("no probe has come back in a quarter of the run")
    return _finding("latency, median", "ms", median(before), median(after), median(before) * _LATENCY_RATIO_MAX)


def _probes(samples: Sequence[Sample]) -> Finding:
    """Count the probes that failed, before the last quarter and in all: a median is of survivors only."""
    first, last = samples[0].at_s, samples[-1].at_s
    before = sum(each.probes_failed for each in samples if each.at_s < first + 0.75 * (last - first))
    return _finding("probes failed", "", before, sum(each.probes_failed for each in samples), 0)


def _most(
    name: str, unit: str, quarters: _Quarters, measure: Callable[[Sample], float], ratio: float, slack: float
) -> Finding:
    before = max(map(measure, quarters.second))
    return _finding(name, unit, before, max(map(measure, quarters.last)), before * ratio + slack)


def _finding(name: str, unit: str, before: float, after: float, bound: float) -> Finding:
    return Finding(name, unit, before, after, bound, after <= bound)
