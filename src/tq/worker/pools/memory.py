"""How much memory this process holds.

Sources: proc(5) for ``/proc/self/statm``; getrusage(2), where the system has no such file.
"""

import os
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
_KIB = 1_024


def resident_bytes() -> int:
    """Return how much of this process is in memory; the most there ever was where the system does not tell; else 0."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except OSError:
        return _peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    try:
        import resource  # noqa: PLC0415 - absent on Windows.
    except ModuleNotFoundError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB
