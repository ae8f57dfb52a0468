"""tq-worker: takes tasks from a broker and runs them.

    0  stopped in good order, after SIGTERM or SIGINT, or the queues of a burst are empty
    1  the worker failed while it ran; the log says how.  With ``--check``: it does not work; standard output says why
    2  a flag, a variable or the settings file is wrong, or the app cannot be imported

The first signal lets what runs end within ``drain_ms`` and hands the rest back; a second
one leaves at once.  A broker that is not there is waited for.  With ``--processes`` this
process supervises the workers; what it is told, it tells them.
"""

import sys
from collections.abc import Sequence

from tq.bin.flags import program, start
from tq.bin.settings import Loaded
from tq.worker.config import WorkerSettings

PURPOSE = "Take tasks from a broker and run them."

EXAMPLES = """\
    tq-worker -A shop.tasks
    tq-worker -A shop.tasks:app -Q urgent:4,default -c 200
    tq-worker -A reports:app -P process -c 4
    tq-worker -A shop.tasks --processes 4
    tq-worker -A shop.tasks --burst
    tq-worker -A shop.tasks --check

The first SIGTERM or Ctrl-C lets what runs end, the second leaves at once.
Exit codes: 0 stopped in good order, 1 failed, 2 wrong settings or no such app.
Of --check: 0 it works, 1 it does not, and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tq-worker with *arguments* (default: this process's) and return its exit code."""
    return start(program("tq-worker", WorkerSettings, run, purpose=PURPOSE, examples=EXAMPLES), arguments)


def run(loaded: Loaded[WorkerSettings]) -> int:
    """Work until a signal, the end of a burst or a failure, and return the exit code.

    Raises:
        UsageError: There is no such app, or its tasks contradict each other.
    """
    from tq.bin.working import check, work  # noqa: PLC0415 - the worker itself, which --help need not load.

    return check(loaded.settings) if loaded.settings.check else work(loaded.settings)


if __name__ == "__main__":
    sys.exit(main())
