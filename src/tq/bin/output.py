"""Standard output that may not take what a program prints: its reader has gone, or the disk is full.

Invariant: what could not be written is not tried again at the end of the interpreter,
which would tell of it in a way of its own and change the exit code.
"""

import os
import sys
from collections.abc import Callable

EXIT_OK = 0
EXIT_FAILED = 1


def write_out(program: str, write: Callable[[], object]) -> int:
    """Have *write* print the answer of *program*, and return the exit code.

    A reader that has seen enough (``| head``) is no error; anything else is told on standard error.
    """
    trouble = try_out(write)
    if trouble is None or isinstance(trouble, BrokenPipeError):
        return EXIT_OK
    print(f"{program}: standard output cannot be written: {trouble}", file=sys.stderr)
    return EXIT_FAILED


def try_out(write: Callable[[], object]) -> OSError | None:
    """Have *write* print to standard output, and return what was in its way; standard output is then void."""
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return error
    return None
