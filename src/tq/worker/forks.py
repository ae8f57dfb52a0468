"""Forks that handlers make: a copy of a process that runs handlers is no worker.

Invariant: a copy runs what its handler still does, and ends with it: as a script would that
ended there, except that nothing which was set up before the fork is run or closed.
"""

import asyncio
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

EXIT_FAILED = 1


def end_copy(error: BaseException | None) -> None:
    """End this process, a fork of one that runs handlers, whose handler returned (None) or raised *error*.

    The exit code is 0 after a return, that of a `SystemExit`, and 1 after any other exception,
    whose traceback goes to standard error.
    """
    code = EXIT_FAILED
    # A text that cannot be made or written must not keep the copy.
    with suppress(BaseException):
        code = _code_after(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _code_after(error: BaseException | None) -> int:
    match error:
        case None:
            return 0
        case SystemExit(code=None):
            return 0
        case SystemExit(code=int() as code):
            # As the kernel has it; os._exit takes no number of more than 32 bits.
            return code & 0xFF
        case SystemExit(code=text):
            sys.stderr.write(f"{text}\n")
        case _:
            traceback.print_exception(error)
    return EXIT_FAILED


def let_go(close: Callable[[], None]) -> None:
    """Have each fork of this process do *close*, and end by signals as other processes do."""

    def forked() -> None:
        # A signal to the copy would else be taken for one to this process: they share the descriptor that wakes it.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forked)


def keep_loop() -> None:
    """Let no fork of this process run on in the running loop: its selector is shared with this process."""
    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    def close() -> None:
        if threading.get_ident() == thread:
            # It comes to this when the coroutine that forked awaits something.
            loop.call_soon(end_copy, RuntimeError("a fork of an async def handler cannot await in its worker's loop"))

    let_go(close)
