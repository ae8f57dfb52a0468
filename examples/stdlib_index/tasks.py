"""The app and its one task: what a source file holds.

The handler is a plain function: its work is CPU, so it belongs in the process pool.  It
does not treat a file that does not parse as a special case: it raises, as handlers do,
and the queue tries again, gives up, and keeps the traceback.
"""

import ast
import time
import warnings
from collections import Counter
from pathlib import Path

import msgspec

from tq import App, RetryPolicy

# The broker is the one that $TQ_URL names, or that of the standard address.
app = App()

QUEUE = "stdlib"

# A file that does not parse will not parse in half a second either: the waits are short to keep the run short.
RETRY = RetryPolicy(max_attempts=3, backoff_ms=200, backoff_max_ms=200, jitter=0)

# What the indexed files are warned of is their authors' business.
warnings.simplefilter("ignore", SyntaxWarning)


class FileIndex(msgspec.Struct, frozen=True):
    """What one file holds.  ``imports`` counts the import statements for each top-level module.

    ``started_at`` is the reading of the machine's monotonic clock, the same in all processes.
    """

    path: str
    lines: int
    functions: int
    classes: int
    imports: dict[str, int]
    started_at: float
    seconds: float


@app.task(queue=QUEUE, retry=RETRY, timeout=60)
def index_file(path: str) -> FileIndex:
    """Parse a file and count what is in it.

    Raises:
        SyntaxError: It is no Python of this version, or its bytes do not decode.
        OSError: It cannot be read.
    """
    started_at = time.monotonic()
    source = Path(path).read_bytes()
    functions = classes = 0
    imports: Counter[str] = Counter()
    for node in ast.walk(ast.parse(source, path)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import(names=names):
                imports.update(name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                imports[module.partition(".")[0]] += 1
            case ast.ImportFrom():
                imports["(its own package)"] += 1
            case _:
                pass
    seconds = time.monotonic() - started_at
    return FileIndex(path, len(source.splitlines()), functions, classes, dict(imports), started_at, seconds)
