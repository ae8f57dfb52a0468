"""Entry points: the three ways to start a program, and an interrupt before it has begun."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from tests.acceptance.programs import environment
from tq.bin import entry

PROGRAMS = ["broker", "worker", "admin"]


class Interrupted:
    """A finder that is interrupted as it looks for one module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == self.name:
            raise KeyboardInterrupt
        return None


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interrupt_during_the_imports_ends_a_program_in_silence(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"tq.bin.{program}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(name), *sys.meta_path])
    start: Callable[[], int] = getattr(entry, program)

    assert start() == 130

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_can_be_started_as_its_module_too(program: str) -> None:
    words = [sys.executable, "-m", f"tq.bin.{program}", "--version"]

    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=20, check=True)

    assert done.stdout.startswith(f"tq-{program} ")
    assert done.stderr == ""


def test_nothing_slow_is_imported_before_an_interrupt_is_heeded() -> None:
    code = "import sys; from tq.bin import entry; print({'asyncio', 'cyclopts', 'msgspec'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
