"""The house style as tests: what a reader may rely on in every file.

Each rule looks at the files themselves, so it holds for code that nobody has reviewed yet.
"""

import ast
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tq.core.errors import ErrorCode

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "tq"
TESTS = ROOT / "tests"

MODULE_LINES_MAX = 500
BODY_LINES_MAX = 60
DUMPING_GROUNDS = {"common", "compat", "helper", "helpers", "misc", "shared", "util", "utils"}

# Source modules without a test module of their own, and what tests them instead.
TESTED_ELSEWHERE: dict[str, str] = {
    "bin/serving.py": "tests/acceptance: the broker's process, started, stopped and killed",
    "bin/reloading.py": "tests/acceptance/test_reload.py: real files change under a real worker",
    "bin/yaml_numbers.py": "tests/bin/test_settings.py: which numbers a settings file may hold, and which it may not",
    "broker/commit.py": "tests/broker/test_service.py: what waits for a commit, and what ends with a failed one",
    "broker/connections.py": "tests/broker/test_service.py: who speaks for a worker, and who is let go",
    "broker/pressure.py": "tests/broker/test_service.py: a full disk, a store that is behind, a full buffer",
    "broker/sessions.py": "tests/broker/test_service.py: every test of it drives sessions over recorded transports",
    "engine/control.py": "tests/engine/test_operations.py, test_dispatch.py: purge, redrive, forget; pause and resume",
    "engine/custody.py": "tests/engine/test_leases.py, test_workers.py: all that workers do",
    "engine/passage.py": "tests/engine/test_engine.py, test_bounds.py: what a tick does, and how much of it at once",
    "engine/views.py": "tests/engine/test_lookup.py: every task is shown where it is",
    "protocol/messages/admin.py": "tests/protocol/test_codec.py, test_document.py: every message",
    "protocol/messages/handshake.py": "tests/protocol/test_codec.py, test_document.py: every message",
    "protocol/messages/tasks.py": "tests/protocol/test_codec.py, test_document.py: every message",
    "protocol/messages/work.py": "tests/protocol/test_codec.py, test_document.py: every message",
    "testing/store_suite.py": "tests/store and tests/testing: every store runs it",
    "testing/audit.py": "tests/simulation/test_planted_bugs.py: each of its rules finds a bug",
    "testing/callers.py": "tests/simulation: what a run consists of",
    "testing/fates.py": "tests/simulation/test_planted_bugs.py: each of its rules finds a bug",
    "testing/hosts.py": "tests/simulation: what a run consists of",
    "testing/order.py": "tests/simulation/test_planted_bugs.py: each of its rules finds a bug",
    "testing/simulator.py": "tests/simulation: many runs, and bugs that it must find",
    "testing/workload.py": "tests/simulation: what a run consists of",
    "core/version.py": "tests/test_packaging.py: the wheel is named by it",
    "worker/assignment.py": "tests/worker: values that its other modules work on",
    "worker/pools/child.py": "tests/worker/pools/test_processes.py: it runs in another process",
    "worker/pools/parent.py": "tests/worker/pools/test_processes.py: the pool's end of each child",
    "worker/pools/pipe.py": "tests/worker/pools/test_processes.py: what a pool and its children say to each other",
    "worker/pools/pool.py": "tests/worker/pools: each pool is one",
}

# A path that exists on one developer's machine only. Tests may name a file under /tmp.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|mnt|opt|root|tmp|Users|work|workspace)/[\w.-]+")
TEMPORARY_PATH = re.compile(r"/tmp/")

# How the text was made is nobody's reading.
TOOL_TALK = re.compile(r"language model|ai assistant|coding agent", re.IGNORECASE)


def kept_files() -> Iterator[Path]:
    """The files that .gitignore lets in; found without git, which an unpacked archive does not have."""
    ignored = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]

    def is_kept(name: str) -> bool:
        return not any(fnmatch(name, pattern) for pattern in ignored)

    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(filter(is_kept, folders))
        yield from (Path(folder, name) for name in sorted(filter(is_kept, names)))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = list(kept_files())
PYTHON = [path for path in FILES if path.suffix == ".py"]
PROGRAMS = [path for path in PYTHON if not path.is_relative_to(TESTS)]
PACKAGES = [path for path in PYTHON if path.is_relative_to(SRC) and path.name == "__init__.py"]
MODULES = [path for path in PYTHON if path.is_relative_to(SRC) and path.name != "__init__.py"]
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function below its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def its_tests(path: Path) -> Path:
    """Where the tests of a source module are: the same place under tests/."""
    inside = path.relative_to(SRC)
    return TESTS / inside.with_name(f"test_{inside.name.lstrip('_')}")


def texts() -> Iterator[tuple[Path, str]]:
    """Every kept file that is text, but for this one, which spells what the others may not."""
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a golden data directory, a picture
            continue
        if path != Path(__file__).resolve():
            yield path, text


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))

    assert ast.get_docstring(module) or (path.name == "__init__.py" and not module.body)


@pytest.mark.parametrize("path", PYTHON, ids=named)
def test_no_module_is_a_dumping_ground(path: Path) -> None:
    names = {part.removesuffix(".py").removeprefix("test_").strip("_") for part in path.relative_to(ROOT).parts}

    assert not names & DUMPING_GROUNDS


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_a_module_is_short_enough_to_read(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]

    too_long = {f.name: body_lines(f) for f in functions if body_lines(f) > BODY_LINES_MAX}

    assert not too_long


@pytest.mark.parametrize("path", PACKAGES, ids=named)
def test_a_package_gathers_names_and_holds_no_logic(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf-8"))

    defined = {n.name for n in module.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}

    # A module's own __getattr__ is how a name is imported at its first use.
    assert defined <= {"__getattr__", "__dir__"}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_has_its_test_module_or_a_reason(path: Path) -> None:
    has_its_own = its_tests(path).exists()
    is_excused = path.relative_to(SRC).as_posix() in TESTED_ELSEWHERE

    # Both at once is an excuse that has outlived its reason.
    assert has_its_own != is_excused, f"{named(its_tests(path))}: present {has_its_own}, excused {is_excused}"


def test_only_modules_that_exist_are_excused() -> None:
    assert not [name for name in TESTED_ELSEWHERE if not (SRC / name).exists()]


@pytest.mark.parametrize("code", list(ErrorCode), ids=str)
def test_every_error_code_is_documented(code: ErrorCode) -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    assert f"`{code.value}`" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_document_starts_with_its_one_title(path: Path) -> None:
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)

    titles = re.findall(r"^# \S.*$", text, flags=re.MULTILINE)

    assert len(titles) == 1
    assert text.startswith(titles[0])


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{named(path)}: {match[0]}"
        for path, text in texts()
        for match in MACHINE_PATH.finditer(text)
        if not (path.is_relative_to(TESTS) and TEMPORARY_PATH.match(match[0]))
    ]

    assert not found


def test_no_file_tells_how_it_was_written() -> None:
    found = [f"{named(path)}: {match[0]}" for path, text in texts() for match in TOOL_TALK.finditer(text)]

    assert not found
