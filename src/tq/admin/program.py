"""The program: from the words after ``tq-admin`` to an answer on standard output and an exit code.

    0  done
    1  the broker refused, there is no such thing, or the question was not answered with yes
    2  the command line or a setting is wrong
    3  no broker answered

Invariant: standard output holds the answer or nothing; what went wrong is on standard error.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cyclopts import App, CycloptsError

from tq.admin.answer import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE
from tq.admin.commands.broker import ping, stats
from tq.admin.commands.dead import dead
from tq.admin.commands.queues import queue, queues
from tq.admin.commands.tasks import task, tasks
from tq.admin.commands.workers import workers
from tq.admin.config import AdminSettings
from tq.admin.operator import Declined, Operator, ask
from tq.admin.render import print_answer, print_error
from tq.client import Dialer, SyncClient, TcpDialer
from tq.core.errors import BrokerError, ProtocolError, TransportError, UsageError
from tq.protocol.endpoints import parse_directory


class Failure(NamedTuple):
    """What went wrong, for standard error."""

    code: str
    exit_code: int


def add_commands(app: App) -> None:
    """Give *app* the commands of tq-admin."""
    for command in (ping, stats, queues, queue, tasks, task, workers, dead):
        app.command(command)


def run(
    app: App, words: Sequence[str], settings: AdminSettings, write_out: Callable[[Callable[[], object]], int]
) -> int:
    """Do what *words* say and return the exit code; whatever goes wrong is told, never raised.

    *write_out* is called with what prints the answer, and returns the exit code.
    """
    try:
        command, bound, left_out = app.parse_args(words)
        if "operator" not in left_out:
            # Help, or the version: it prints itself.
            return write_out(lambda: command(*bound.args, **bound.kwargs))
        timeout_s = settings.timeout_ms / 1_000
        with (
            _way_to(settings) as dialer,
            SyncClient(dialer, request_timeout_s=timeout_s, connect_timeout_s=timeout_s) as client,
        ):
            answer = command(*bound.args, **bound.kwargs, operator=Operator(client, ask))
    except (BrokerError, CycloptsError, Declined, ProtocolError, TransportError, UsageError) as error:
        return tell(error, as_json=settings.json)
    written: int = write_out(lambda: print_answer(answer, sys.stdout, as_json=settings.json))
    return written or int(answer.exit_code)


@contextmanager
def _way_to(settings: AdminSettings) -> Iterator[Dialer]:
    """Yield the way to the broker; that of a directory which nobody has open is in this process until the end.

    Raises:
        BrokerUnavailable: The directory has never been used.
    """
    directory = parse_directory(settings.url)
    if directory is None:
        yield TcpDialer.of(settings.url)
        return
    from tq.app.embedded import FileDialer  # noqa: PLC0415 - what only a directory needs.

    dialer = FileDialer(Path(directory).absolute())
    dialer.check_holds_data()
    try:
        yield dialer
        if dialer.is_owner and not settings.json:
            print(f"Nobody else has {dialer.directory} open: tq-admin opened it for this command.", file=sys.stderr)
    finally:
        dialer.close()


def tell(error: Exception, *, as_json: bool) -> int:
    """Say on standard error what went wrong, and return the exit code for it."""
    failure = failure_of(error)
    print_error(failure.code, str(error), failure.exit_code, sys.stderr, as_json=as_json)
    return failure.exit_code


def failure_of(error: Exception) -> Failure:
    """Return the code and the exit code that *error* stands for."""
    match error:
        case BrokerError():
            return Failure(error.code.value, EXIT_REFUSED)
        case Declined():
            return Failure("declined", EXIT_REFUSED)
        case TransportError() | ProtocolError():
            return Failure("unavailable", EXIT_UNAVAILABLE)
        case _:
            return Failure("usage", EXIT_USAGE)
