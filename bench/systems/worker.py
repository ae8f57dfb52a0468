"""A peer's worker: its own command line, from its own environment, in place of the program that asked for it."""

import os
import sys
from pathlib import Path


def become(program: str, *words: str) -> None:
    """Become *program*, as it is installed beside this Python."""
    path = Path(sys.executable).parent / program
    os.execv(path, [str(path), *words])  # noqa: S606 - no shell is the point
