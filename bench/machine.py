"""The machine: what a reader must know of it to read the figures."""

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import environments
from bench.systems.catalog import SYSTEMS
from bench.systems.running import python
from tq import __version__

_FSYNCS = 200
_LIBRARIES = ("msgspec", "uvloop", "rocksdict")


class Machine(NamedTuple):
    """One line each."""

    cpu: str
    system: str
    python: str
    libraries: str
    peers: str
    servers: str
    disk: str
    load: str


def describe(systems: Sequence[str]) -> Machine:
    """Return what this machine is and has of *systems*; it measures how long an fsync of 4 KiB takes."""
    return Machine(
        f"{os.cpu_count()} x {_processor()}, {_memory_gib():.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, {platform.machine()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        ", ".join([f"tq {__version__}", *(f"{name} {version(name)}" for name in _LIBRARIES)]),
        "; ".join(filter(None, map(_versions, systems))) or "none",
        "; ".join(dict.fromkeys(filter(None, map(_server, systems)))) or "tq-broker alone",
        f"{_file_system(Path(tempfile.gettempdir()))}, fsync of 4 KiB in {_fsync_ms():.2f} ms (median of {_FSYNCS})",
        f"{os.getloadavg()[0]:.1f} when the measurement began (0 is an idle machine)",
    )


def _versions(name: str) -> str:
    """Return the versions of a peer's libraries."""
    system = SYSTEMS[name]
    if not system.libraries:
        return ""
    found = environments.versions(python(name), system.libraries)
    # The first is the peer itself, the others are what it stands on.
    return ", ".join(f"{library} {number}" for library, number in found.items())


def _server(name: str) -> str:
    """Return the version of a peer's server, as that tells it."""
    executable = SYSTEMS[name].executable
    return environments.server_version(executable()) if executable is not None else ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or "unknown CPU"


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(directory: Path) -> str:
    """Return the type of the file system of *directory*: that of the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    above = [(point, kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else "unknown file system"


def _fsync_ms() -> float:
    took = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(_FSYNCS):
            file.write(bytes(4_096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return median(took) * 1_000
