"""The app that ``-A`` names: imported, found in its module, checked to be one.

Invariant: whatever is wrong, the error says which of the three steps failed and what to
do; a module that raises is shown with its own traceback, without the frames of this program.
"""

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from tq.core.errors import ConfigError

T = TypeVar("T")

ATTRIBUTE_DEFAULT = "app"


def find_app(text: str, kind: type[T], directory: Path) -> T:
    """Return the object of *kind* that *text* names: ``module:name``, or ``module`` for its ``app``.

    Modules are looked for in *directory* first, as Python does for a script, also later by
    the modules themselves.

    Raises:
        ConfigError: There is no such module, it raises when imported, or it has no such *kind*.
    """
    module_name, _, attribute = text.partition(":")
    attribute = attribute or ATTRIBUTE_DEFAULT
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ConfigError(
            f"the app {text!r} is not of the form module:name, as in examples.stdlib_index:app; "
            "the module is written as it is imported, with dots and without .py"
        )
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    module = _import(module_name, directory)
    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, kind):
        raise ConfigError(_not_found(module, attribute, found, kind))
    return found


def _import(name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package above it; anything else is an import inside of it that fails.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"there is no module {error.name!r} to import the app {name!r} from; looked in {directory} "
                "and where Python finds packages. Start in the directory that holds it, or set PYTHONPATH"
            ) from None
        raise ConfigError(_raised(name, error)) from error
    except (Exception, SystemExit) as error:
        # Another's code runs here, and may end in any way.
        raise ConfigError(_raised(name, error)) from error


def _raised(name: str, error: BaseException) -> str:
    """Return what the module *name* raised, from its first own frame on."""
    told = traceback.TracebackException.from_exception(error)
    own = [frame for frame in told.stack if not frame.filename.startswith("<frozen importlib")]
    # The first frames are this module's and importlib's.
    first = next((i for i, frame in enumerate(own) if "importlib" not in frame.filename and i > 0), len(own))
    told.stack = traceback.StackSummary.from_list(own[first:])
    return f"the module {name!r} raised when it was imported:\n\n{''.join(told.format(chain=False)).rstrip()}"


def _not_found(module: ModuleType, attribute: str, found: object, kind: type) -> str:
    others = [name for name, value in vars(module).items() if isinstance(value, kind)]
    is_what = "is missing" if found is None else f"is no {kind.__name__} but a {type(found).__name__}"
    hint = (
        f"did you mean {module.__name__}:{others[0]}?"
        if others
        else f"the module has no {kind.__name__} at all: write app = {kind.__name__}() there"
    )
    return f"{attribute!r} in the module {module.__name__!r} {is_what}; {hint}"
