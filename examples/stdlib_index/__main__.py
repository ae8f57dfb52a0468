"""The program: indexes the standard library by tasks, shows the index, and checks it.

0    everything was as it must be
1    something was not; the output says what
2    the command line is wrong
130  interrupted; broker and worker have been stopped
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, TypeVar

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.stdlib_index.report import as_json, print_tables
from examples.stdlib_index.run import run
from examples.stdlib_index.sources import UnknownPackageError, find, standard_library
from tq import TaskQueueError
from tq.testing.programs import ProgramError

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

T = TypeVar("T")

cli = App(
    name="python -m examples.stdlib_index",
    help="Index this machine's Python standard library by tasks, one a source file.",
    help_format="plaintext",
    version_flags=[],
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)


@cli.default
def index(
    *packages: Annotated[str, Parameter(help="Packages whose files have high priority. [default: asyncio email]")],
    workers: Annotated[
        int | None,
        Parameter(help="Processes that index. [default: one a CPU]", validator=Number(gte=1, lte=256)),
    ] = None,
    tree: Annotated[Path | None, Parameter(help="Index this directory instead of the standard library.")] = None,
    keep_data: Annotated[
        Path | None, Parameter(help="Keep the broker's data and the logs here: a directory that is new or empty.")
    ] = None,
    json: Annotated[bool, Parameter(help="Print the report as JSON instead of tables.", negative="")] = False,
) -> int:
    """Run the whole job; see the module's docstring for what is returned."""
    named = packages if packages or tree is not None else ("asyncio", "email")
    sources = find(tree or standard_library(), named)
    count = workers or os.cpu_count() or 1
    console, progress_console = Console(), Console(stderr=True)
    progress_console.print(
        f"{len(sources.paths):,} files, {sources.size_bytes / 1e6:.1f} MB, under {sources.tree}", highlight=False
    )
    with ExitStack() as stack:
        directory = _empty(keep_data) if keep_data else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        progress = stack.enter_context(_progress(progress_console))

        def track(items: Iterable[T], count: int, title: str) -> Iterator[T]:
            return iter(progress.track(items, total=count, description=title))

        done = run(sources, count, directory, track)
    if json:
        print(as_json(done, sources, count))
    else:
        print_tables(console, done, sources, count)
    return EXIT_UNEXPECTED if done.differences else EXIT_OK


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _empty(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise NotADirectoryError(f"--keep-data {directory} is not empty; name a new directory, or an empty one")
    return directory


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line; stop what was started, whatever happens."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli(sys.argv[1:])
    except (CycloptsError, UnknownPackageError, NotADirectoryError) as error:
        print(f"{error}\nTry --help.", file=sys.stderr)
        return EXIT_USAGE
    except (ProgramError, TaskQueueError) as error:
        print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_UNEXPECTED
    except KeyboardInterrupt:
        print("interrupted; broker and worker have been stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else EXIT_OK


sys.exit(main())
