"""Entry points: where the installed scripts begin, before anything that takes time is imported.

Invariant: an interrupt (Ctrl-C) ends a program in silence from here on, also while it
is still being imported, and never with a traceback.
"""

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
    try:
        code: int = import_module(module).main()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code
