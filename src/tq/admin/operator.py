"""The operator: the broker that a command is about, and the person who gave it."""

import sys
from collections.abc import Callable
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from tq.client import SyncClient
from tq.core.errors import ConfigError
from tq.core.queue import QueueView


class Operator(NamedTuple):
    """What a command works with."""

    client: SyncClient
    confirm: Callable[[str], bool]
    """Asks a question that only yes answers; see `ask`."""

    def queue(self, name: str) -> QueueView:
        """Return one queue, in detail.

        Raises:
            QueueNotFound: There is no queue of this name.
        """
        (view,) = self.client.queues(name)
        return view


Operated = Annotated[Operator, Parameter(parse=False)]
"""The parameter of a command that is not on its command line."""


class Declined(Exception):
    """The person at the terminal did not say yes: nothing was done."""


def ask(question: str) -> bool:
    """Ask on the terminal; anything but y or yes is no.

    Raises:
        ConfigError: Nobody is there to ask.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is at a terminal to say so: add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
