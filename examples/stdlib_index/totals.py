"""What an index of many files comes to, and whether two runs over the same files agree.

Invariant: a `Totals` is made of per-file outcomes alone, so that two runs that saw the
same files and did the same with each are equal, whatever their order.
"""

from collections import Counter
from typing import NamedTuple

from examples.stdlib_index.sources import Sources
from examples.stdlib_index.tasks import FileIndex


class Outcomes(NamedTuple):
    """What became of each file, by path: its index, or the type of the exception that it ended in."""

    indexed: dict[str, FileIndex]
    failed: dict[str, str]


class Totals(NamedTuple):
    """Sums over all files."""

    files: int
    failed: int
    lines: int
    functions: int
    classes: int
    imports: int


class Package(NamedTuple):
    """Sums over one top-level package or module."""

    name: str
    files: int
    lines: int
    functions: int
    classes: int


def totals(outcomes: Outcomes) -> Totals:
    """Return the sums over all files."""
    indexed = outcomes.indexed.values()
    return Totals(
        files=len(outcomes.indexed) + len(outcomes.failed),
        failed=len(outcomes.failed),
        lines=sum(file.lines for file in indexed),
        functions=sum(file.functions for file in indexed),
        classes=sum(file.classes for file in indexed),
        imports=sum(sum(file.imports.values()) for file in indexed),
    )


def packages(outcomes: Outcomes, sources: Sources) -> list[Package]:
    """Return the packages, the one with the most lines first."""
    by_name: dict[str, list[FileIndex]] = {}
    for path, file in outcomes.indexed.items():
        by_name.setdefault(sources.package_of(path), []).append(file)
    found = [
        Package(
            name,
            len(files),
            sum(file.lines for file in files),
            sum(file.functions for file in files),
            sum(file.classes for file in files),
        )
        for name, files in by_name.items()
    ]
    return sorted(found, key=lambda package: (-package.lines, package.name))


def imported(outcomes: Outcomes) -> Counter[str]:
    """Return how often each top-level module is imported."""
    counts: Counter[str] = Counter()
    for file in outcomes.indexed.values():
        counts.update(file.imports)
    return counts


def overtaken(outcomes: Outcomes, sources: Sources) -> int:
    """Return how many of the other files were started before the last of the urgent ones.

    Tasks are handed out in order, but start in as many processes side by side: while the
    last urgent file waits for a process, the others may each have gone one further.
    """
    indexed = outcomes.indexed
    urgent = [indexed[path].started_at for path in sources.urgent if path in indexed]
    others = [indexed[path].started_at for path in sources.others if path in indexed]
    return sum(started_at < max(urgent) for started_at in others) if urgent else 0


def differences(queued: Outcomes, sequential: Outcomes) -> list[str]:
    """Return what the two runs disagree about, in sentences; nothing if they agree."""
    found = []
    sums = zip(Totals._fields, totals(queued), totals(sequential), strict=True)
    found += [f"{name}: {one} by tasks, {other} in sequence" for name, one, other in sums if one != other]
    for path in sorted(queued.failed.keys() | sequential.failed.keys()):
        one, other = queued.failed.get(path, "no failure"), sequential.failed.get(path, "no failure")
        if one != other:
            found.append(f"{path}: {one} by tasks, {other} in sequence")
    return found
