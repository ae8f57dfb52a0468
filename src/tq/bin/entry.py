"""Entry points: where the installed scripts begin, before anything that takes time is imported.

Invariant: an interrupt (Ctrl-C) ends a program in silence from here on, also while it
is still being imported, and never with a traceback; and descriptors 0 to 2 are open, so
that no socket or file of the program's own takes the place of one that its caller closed.
"""

import os
import sys
from importlib import import_module

EXIT_INTERRUPTED = 130
"""What shells say of a program that SIGINT ended: 128 and the signal's number."""


def broker() -> int:
    """Run tq-broker."""
    return _run("tq.bin.broker")


def worker() -> int:
    """Run tq-worker."""
    return _run("tq.bin.worker")


def admin() -> int:
    """Run tq-admin."""
    return _run("tq.bin.admin")


def _run(module: str) -> int:
    _open_standard_descriptors()
    try:
        code: int = import_module(module).main()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _open_standard_descriptors() -> None:
    """Open the null device in the place of each standard descriptor that is closed; Python leaves it so."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one: those below are open by now.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
