"""Whether the kernel has killed for want of memory: what tells such a SIGKILL from any other.

Sources: the kernel's "Control Group v2" for ``memory.events`` and "Memory Resource
Controller" for ``memory.oom_control`` (both count kills in the group, whatever ordered
them); ``/proc/vmstat`` counts those of the whole machine, and is asked only where this
process's group keeps no count.

Invariant: a count only grows; where nothing can be read it is 0 for ever.
"""

from pathlib import Path

_WORD = "oom_kill"


class OomKills:
    """The kernel's count of such kills, where this process would be counted; *root* is that of the file system."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._path = next((path for path in _counters(root) if _count_in(path) is not None), None)

    def count(self) -> int:
        """Return how many processes have been killed for want of memory so far."""
        return 0 if self._path is None else _count_in(self._path) or 0


def _counters(root: Path) -> list[Path]:
    """Return the files that may have the count, the closest to this process first."""
    groups = root / "sys/fs/cgroup"
    found: list[Path] = []
    for line in _text_of(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # In a container the path is that of the host; its own group is then mounted as the root.
        inner = path.lstrip("/")
        if hierarchy == "0":
            found += [groups / inner / "memory.events", groups / "memory.events"]
        elif "memory" in controllers.split(","):
            of_memory = groups / "memory"
            found += [of_memory / inner / "memory.oom_control", of_memory / "memory.oom_control"]
    return [*found, root / "proc/vmstat"]


def _count_in(path: Path) -> int | None:
    for line in _text_of(path).splitlines():
        name, _, number = line.partition(" ")
        if name == _WORD and number.strip().isdigit():
            return int(number)
    return None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
