"""A worker that is started anew when its code changes: for development.

watchfiles watches the directory and keeps the process; the worker in it is stopped in good
order, so that what runs is not lost, and killed only if it does not end in its time.

Invariant: this is the one module that knows watchfiles.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tq.core.errors import ConfigError
from tq.worker.config import WorkerSettings

_log = logging.getLogger("tq.worker")

# On top of the time that its tasks have: it still has to settle and to say goodbye.
_LEAVE_S = 5

Work = Callable[[WorkerSettings], int]


def reload(settings: WorkerSettings, work: Work, directory: Path) -> None:
    """Have another process do *work*, anew at each change of a Python file below *directory*, until SIGTERM or SIGINT.

    Raises:
        ConfigError: The extra ``reload`` is not installed.
    """
    try:
        import watchfiles  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError("--reload needs watchfiles, which is not installed: pip install 'tq[reload]'") from error
    # It tells of every start and of every file, at a level at which it is of no interest.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    _log.info("watching %s: the worker starts anew when a .py file in it changes", directory)
    watchfiles.run_process(
        directory,
        target=_work_in_a_child,
        args=(settings, work),
        target_type="function",
        watch_filter=watchfiles.PythonFilter(),
        callback=_tell,
        debounce=400,
        sigint_timeout=settings.drain_ms // 1_000 + _LEAVE_S,
    )


def _tell(changes: set[tuple[Any, str]]) -> None:
    paths = sorted(os.path.relpath(path) for _, path in changes)
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    _log.info("%s%s changed: the worker starts anew", paths[0], more)


def _work_in_a_child(settings: WorkerSettings, work: Work) -> None:
    threading.Thread(target=_end_with_parent, name="tq-parent", daemon=True).start()
    raise SystemExit(work(settings))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "it is started by `reload`"
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
