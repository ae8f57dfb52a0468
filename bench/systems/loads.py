"""What every system is given to do, and how its workers say that they have done it.

A task takes what a small real one takes, a number and eighty characters, and does nothing.
Where the server does not count what was done, each handler adds one byte to a file, in one
system call that needs no lock between threads or processes: the size of the file is the count.

Invariant: a byte is written only by a handler that ran.
"""

import os
import time
from pathlib import Path

TEXT = "x" * 80
FRAME_TASKS = 500
FRAMES_IN_FLIGHT = 8
THREADS = 8
"""Threads of a pool, where one is measured."""
PROCESSES = 2
"""Child processes of a pool, where one is measured."""
CALLERS_MAX = 100
"""Callers at a time, where many are measured."""
URL_VARIABLE = "BENCH_URL"
RESULTS_VARIABLE = "BENCH_RESULTS"
"""Set where results are waited for."""
TALLY_VARIABLE = "BENCH_TALLY"

_files: dict[int, int] = {}


def url() -> str:
    """Return where the server is."""
    return os.environ[URL_VARIABLE]


def port() -> int:
    """Return the server's port on this machine."""
    return int(url().rpartition(":")[2].partition("/")[0])


def count(tasks: int = 1) -> None:
    """Note that so many tasks ran, here and now."""
    # A forked child has its parent's file; one file a process keeps the dictionary from being shared in a hurry.
    process = os.getpid()
    if process not in _files:
        _files[process] = os.open(os.environ[TALLY_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_files[process], b"." * tasks)


def counted() -> int:
    """Return how many tasks ran, in all processes."""
    tally = Path(os.environ[TALLY_VARIABLE])
    return tally.stat().st_size if tally.exists() else 0


def started_at() -> float:
    """Return the reading of the machine's monotonic clock, which all its processes share; the task counts as run."""
    now = time.monotonic()
    count()
    return now
