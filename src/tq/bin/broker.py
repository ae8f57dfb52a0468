"""tq-broker: keeps tasks, hands them to workers, keeps what became of them.

    0  stopped in good order, after SIGTERM or SIGINT
    1  the broker failed while it ran; the log says how
    2  a flag, a variable or the settings file is wrong
    3  the data cannot be opened: in use, damaged, of a later version, or the disk is full
    4  the address cannot be listened on

Once it serves, it prints one line to standard output, ``listening on HOST:PORT``; all else
goes to the log.
"""

import sys
from collections.abc import Sequence

from tq.bin.flags import program, start
from tq.bin.settings import Loaded
from tq.broker.config import BrokerSettings, check_exposure
from tq.store.base import Durability

PURPOSE = "Keep tasks, hand them to workers, and keep what became of them."

EXAMPLES = """\
    tq-broker
    tq-broker --data /var/lib/tq --durability interval
    tq-broker --listen 0.0.0.0:7766 --insecure
    tq-broker --config tq.yml --print-config

Exit codes: 0 stopped in good order, 1 failed, 2 wrong settings, 3 the data cannot be opened,
4 the address cannot be listened on."""

DETAILS = {"durability": " ".join(f"{each.value}: {each.risk}" for each in Durability)}
"""What the help of a setting adds to its declaration, which cannot know the store."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tq-broker with *arguments* (default: this process's) and return its exit code."""
    app = program("tq-broker", BrokerSettings, run, purpose=PURPOSE, examples=EXAMPLES, details=DETAILS)
    return start(app, arguments)


def run(loaded: Loaded[BrokerSettings]) -> int:
    """Serve until a signal or a failure, and return the exit code.

    Raises:
        ConfigError: The address is not for this machine alone, or the store is not installed.
    """
    warning = check_exposure(loaded.settings)
    from tq.bin.serving import serve  # noqa: PLC0415 - the broker itself, which --help need not load.

    return serve(loaded.settings, warning)


if __name__ == "__main__":
    sys.exit(main())
