"""The simulator's command line."""

import re
import shlex

import pytest

from tq.engine.flows import Flow
from tq.testing.simulate import main


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="tq")


def test_it_runs_the_seeds_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seeds", "2", "--first", "7", "--processes", "1"])

    assert code == 0
    assert capsys.readouterr().out.startswith("2 seeds passed in ")


def test_it_runs_them_in_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seeds", "25", "--processes", "2"])

    assert code == 0
    assert "25 seeds passed in " in capsys.readouterr().out


def test_a_seed_that_fails_is_cut_down_and_comes_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_floor = Flow._write_floor
    monkeypatch.setattr(Flow, "_write_floor", lambda flow, floor, changes: write_floor(flow, floor + 1, changes))

    code = main(["--seeds", "0", "--processes", "1"])

    said = capsys.readouterr().err
    assert code == 1
    assert re.match(r"seed \d+ fails; looking for the smallest part of it that does", said)
    assert "below the floor" in said
    assert len(said.splitlines()) < 40
    command = shlex.split(said.splitlines()[-1])
    assert command[:3] == ["python", "-m", "tq.testing.simulate"]
    assert main(command[3:]) == 1
    assert capsys.readouterr().err.splitlines() == said.splitlines()[1:]


def test_a_part_of_a_seed_that_is_well_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--first", "7", "--only", "0,1,2"])

    assert code == 0
    assert capsys.readouterr().out == "this part of seed 7 passed\n"
