"""Names: what a task is called, also in a program that was run as a script."""

import functools
import importlib.machinery
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tq.app.naming import default_name, main_module_name
from tq.core.errors import UsageError


def test_a_function_is_named_by_its_module_and_itself() -> None:
    assert default_name(json.dumps) == "json.dumps"


def test_a_class_is_named_by_its_module_and_itself() -> None:
    assert default_name(json.JSONDecoder) == "json.decoder.JSONDecoder"


@pytest.mark.parametrize("nameless", [lambda: None, functools.partial(json.dumps, {})])
def test_what_has_no_name_must_be_given_one(nameless: object) -> None:
    with pytest.raises(UsageError, match=r"name=\.\.\."):
        default_name(nameless)  # type: ignore[arg-type]


def test_a_module_run_by_its_name_is_called_so() -> None:
    spec = importlib.machinery.ModuleSpec("shop.mail", None)

    assert main_module_name(spec, "/srv/shop/mail.py") == "shop.mail"


def test_a_script_is_called_by_its_file(tmp_path: Path) -> None:
    assert main_module_name(None, str(tmp_path / "mail.py")) == "mail"


def test_a_script_in_a_package_is_called_by_its_packages_too(tmp_path: Path) -> None:
    package = tmp_path / "shop" / "tasks"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (package / "__init__.py").touch()

    assert main_module_name(None, str(package / "mail.py")) == "shop.tasks.mail"


def test_a_session_without_a_file_has_no_name() -> None:
    assert main_module_name(None, None) is None


PROGRAM = """
import warnings
warnings.simplefilter("error")
from tq.app.naming import default_name
def send(): ...
print(default_name(send))
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    source = Path(__file__).resolve().parents[2] / "src"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.acceptance
def test_a_task_of_a_script_has_the_name_that_a_worker_will_know(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text(PROGRAM)

    as_script, as_module = run("mail.py", cwd=tmp_path), run("-m", "mail", cwd=tmp_path)

    assert as_script.stdout == "mail.send\n"
    assert as_module.stdout == "mail.send\n"


@pytest.mark.acceptance
def test_a_task_of_an_interactive_session_comes_with_a_warning(tmp_path: Path) -> None:
    done = run("-c", PROGRAM, cwd=tmp_path)

    assert "UserWarning: task 'send' is declared in an interactive session" in done.stderr
