"""Entry points: the three ways to start a program, and an interrupt before it has begun."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from tests.acceptance.fleet import until
from tests.acceptance.programs import environment
from tq.bin import entry
from tq.testing.programs import tq_command

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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_the_caller_closed_are_the_null_device(closed: str, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import os, sys\n"
        "def main():\n"
        "    print('out'), print('err', file=sys.stderr), sys.stdin.read()\n"
        "    return 10 + (os.open(os.devnull, os.O_RDONLY) > 2) + all(os.get_inheritable(n) for n in range(3))\n"
    )
    code = "import sys; from tq.bin import entry; sys.exit(entry._run('probe'))"
    paths = f"{environment()['PYTHONPATH']}:{tmp_path}"

    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code],
        env=environment(PYTHONPATH=paths),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert done.returncode == 12
    assert done.stdout == ("" if ">&-" in closed.split() else "out\n")
    assert done.stderr == ("" if "2>&-" in closed.split() else "err\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_broker_whose_caller_closed_a_standard_descriptor_stops_in_good_order(closed: str, tmp_path: Path) -> None:
    broker = tq_command("tq-broker", "--listen", "127.0.0.1:0", "--store", "memory", "--log-format", "json")
    log = tmp_path / "log"
    words = ["sh", "-c", f'exec "$@" 2>"$0" {closed}', str(log), *broker]

    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if closed == ">&-":
                until(lambda: log.exists() and "listening on" in log.read_text())
            else:
                assert process.stdout.readline().startswith("listening on")
        finally:
            process.terminate()

    assert process.returncode == 0
