"""tq-broker: its help, and its refusals before it serves; tests/acceptance runs the rest."""

import pytest

from tq.bin.broker import main


def test_help_says_what_each_durability_risks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("sync: fsync before", "interval: fsync every", "none: ", "power failure", "Exit codes: 0 stopped"):
        assert part in text


def test_an_address_beyond_this_machine_needs_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--listen", "0.0.0.0:0", "--store", "memory"]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert "authenticates nobody" in err
    assert "--insecure" in err


def test_a_wrong_setting_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--durability", "fsync"]) == 2
    assert "--durability must be sync, interval or none; got 'fsync'" in capsys.readouterr().err
