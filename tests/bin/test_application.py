"""Finding the app that -A names: each way in which it may not be there has its own words."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tq.bin.application import find_app
from tq.core.errors import ConfigError


class Thing:
    """Stands for the app: what is looked for is an argument."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory to import from; what was imported from it is forgotten afterwards."""
    path, known = list(sys.path), set(sys.modules)
    (tmp_path / "things.py").write_text(
        f"from {__name__} import Thing\napp = Thing()\nother = Thing()\n\nclass Space:\n    inner = Thing()\n"
    )
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.mark.parametrize(
    "text, where", [("things", "app"), ("things:app", "app"), ("things:other", "other"), ("things:", "app")]
)
def test_an_app_is_a_name_in_a_module(text: str, where: str, folder: Path) -> None:
    found = find_app(text, Thing, folder)

    assert found is getattr(sys.modules["things"], where)


def test_an_app_may_be_inside_something(folder: Path) -> None:
    assert find_app("things:Space.inner", Thing, folder) is sys.modules["things"].Space.inner


def test_the_directory_stays_importable_and_is_listed_once(folder: Path) -> None:
    find_app("things", Thing, folder)
    find_app("things", Thing, folder)

    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize("text", ["", ":", "things.py:app x", "./things", "a..b", "things:app()", "9lives"])
def test_what_no_import_statement_could_say_is_refused_before_importing(text: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="is not of the form module:name"):
        find_app(text, Thing, folder)


@pytest.mark.parametrize("text", ["nowhere", "nowhere.at.all", "things.deeper"])
def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(text: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no module") as caught:
        find_app(text, Thing, folder)

    assert str(folder) in str(caught.value)


def test_a_module_that_raises_is_told_with_its_own_traceback_alone(folder: Path) -> None:
    (folder / "broken.py").write_text("def f():\n    return 1 / 0\n\nf()\n")

    with pytest.raises(ConfigError) as caught:
        find_app("broken", Thing, folder)

    text = str(caught.value)
    assert "the module 'broken' raised when it was imported" in text
    assert "ZeroDivisionError: division by zero" in text
    assert 'broken.py", line 4' in text
    assert "application.py" not in text
    assert "importlib" not in text


def test_an_import_that_fails_inside_the_module_is_the_modules_failure(folder: Path) -> None:
    (folder / "broken.py").write_text("import nowhere_to_be_found\n")

    with pytest.raises(ConfigError, match="raised when it was imported") as caught:
        find_app("broken", Thing, folder)

    assert 'broken.py", line 1' in str(caught.value)


def test_a_syntax_error_names_its_line(folder: Path) -> None:
    (folder / "broken.py").write_text("x = 1\ndef :\n")

    with pytest.raises(ConfigError, match=r"broken\.py\", line 2"):
        find_app("broken", Thing, folder)


def test_a_module_that_ends_the_program_does_not(folder: Path) -> None:
    (folder / "broken.py").write_text("import sys\nsys.exit(3)\n")

    with pytest.raises(ConfigError, match="SystemExit: 3"):
        find_app("broken", Thing, folder)


def test_a_missing_name_suggests_an_app_that_is_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"'queue' in the module 'things' is missing; did you mean things:app\?"):
        find_app("things:queue", Thing, folder)


def test_something_else_of_that_name_is_told_for_what_it_is(folder: Path) -> None:
    (folder / "empty.py").write_text("def app(): ...\n")

    with pytest.raises(ConfigError, match=r"is no Thing but a function; .* write app = Thing\(\)"):
        find_app("empty", Thing, folder)
