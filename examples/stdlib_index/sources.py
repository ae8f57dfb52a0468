"""The source files to index: those of a tree, by package, and one that cannot be parsed.

Invariant: nothing is left out for being odd.  The standard library ships files on purpose
that do not parse or decode (tests of the parser); they are input like all others, and
their tasks end as they must.
"""

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

BROKEN = Path(__file__).with_name("broken_source.txt")
BROKEN_PACKAGE = "(this example)"

# What other people installed beside the standard library, and what is no source.
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}


class UnknownPackageError(ValueError):
    """A package that was named is not in the tree."""


class Sources(NamedTuple):
    """Paths of files.  ``urgent`` are those of the packages that were named, ``others`` the rest."""

    tree: Path
    urgent: list[str]
    others: list[str]
    size_bytes: int

    @property
    def paths(self) -> list[str]:
        """All of them; those that nobody is in a hurry for come first."""
        return self.others + self.urgent

    def package_of(self, path: str) -> str:
        """Return the top-level package or module that *path* belongs to."""
        if path == str(BROKEN):
            return BROKEN_PACKAGE
        return Path(path).relative_to(self.tree).parts[0].removesuffix(".py")


def standard_library() -> Path:
    """Return the directory of this Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find(tree: Path, packages: Sequence[str]) -> Sources:
    """Return the ``.py`` files under *tree* and the broken one, *packages* being the urgent ones.

    Each file is read once here, so that whoever indexes first does not pay for the disk.

    Raises:
        UnknownPackageError: *tree* has no source of a package that was named.
    """
    files = sorted(path for path in tree.rglob("*.py") if not _LEFT_OUT & set(path.relative_to(tree).parts))
    size_bytes = sum(len(path.read_bytes()) for path in [BROKEN, *files])
    found = Sources(tree, [], [str(BROKEN)], size_bytes)
    for path in map(str, files):
        (found.urgent if found.package_of(path) in packages else found.others).append(path)
    missing = set(packages) - {found.package_of(path) for path in found.urgent}
    if missing:
        raise UnknownPackageError(f"{tree} has no source of {', '.join(sorted(missing))}")
    return found
