"""Names: what a task is called when its declaration does not say.

A task's name is ``module.function``, the module as a worker imports it.  A program run as
a script knows its own module as ``__main__``; its real name is found from how it was
started, so that the script's tasks are those of the worker that imports the same file.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tq.core.errors import UsageError

# The second is what multiprocessing calls the main module in a process that it spawned.
_RUN_AS_SCRIPT = ("__main__", "__mp_main__")


def default_name(declared: Callable[..., Any] | type) -> str:
    """Return ``module.function`` for a function, ``module.Class`` for a class.

    >>> from json import dumps
    >>> default_name(dumps)
    'json.dumps'

    Warns:
        UserWarning: It is of an interactive session: no worker can import it.

    Raises:
        UsageError: It has no name.
    """
    module = getattr(declared, "__module__", None)
    qualified = getattr(declared, "__qualname__", None)
    if module is None or qualified is None or qualified.endswith("<lambda>"):
        raise UsageError(f"{declared!r} has no name of its own: give the task one with name=...")
    if module in _RUN_AS_SCRIPT:
        main = sys.modules.get(module)
        real = main_module_name(getattr(main, "__spec__", None), getattr(main, "__file__", None))
        if real is None:
            warnings.warn(
                f"task {qualified!r} is declared in an interactive session, where its name is "
                f"'__main__.{qualified}': only a worker in this process can run it. "
                "Declare it in a module, or give the name that the worker knows with name=...",
                stacklevel=4,
            )
        module = real or "__main__"
    return f"{module}.{qualified}"


def main_module_name(spec: Any, file: str | None) -> str | None:
    """Return the name by which others import the main module, from its ``__spec__`` and ``__file__``.

    ``python -m package.module`` says it outright.  For ``python folder/module.py`` it is
    the file's name, after those of the packages (folders with an ``__init__.py``) around it.
    None where there is no file.
    """
    if spec is not None:
        return str(spec.name)
    if file is None:
        return None
    path = Path(file).resolve()
    parts = [path.stem]
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))
