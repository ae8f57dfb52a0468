"""The simulator's command line."""

import pytest

from tq.engine.flows import Flow
from tq.testing.simulate import main


def test_it_runs_the_seeds_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seeds", "2", "--first", "7"])

    assert code == 0
    assert capsys.readouterr().out.startswith("2 seeds passed in ")


def test_a_seed_that_fails_is_named_with_what_happened_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_floor = Flow._write_floor
    monkeypatch.setattr(Flow, "_write_floor", lambda flow, floor, changes: write_floor(flow, floor + 1, changes))

    code = main(["--seeds", "0"])

    told = capsys.readouterr().err
    assert code == 1
    assert told.startswith("seed ")
    assert "below the floor" in told
    assert "broker starts" in told or "begins" in told
