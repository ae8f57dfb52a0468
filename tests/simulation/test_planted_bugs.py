"""The simulator is worth what it finds: a bug that is planted must be found by one of its first seeds."""

import re
from pathlib import Path

import pytest

from tests.simulation.planted import PLANTED, Check, Planted
from tq.testing.simulator import SimulationFailed, simulate

# Each is found by a twentieth of the seeds, or more; by the check that is named, or by one that comes first.
SEEDS_MAX = 60
DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.plant.__name__)
def test_a_planted_bug_is_found(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="tq")
    planted.plant(monkeypatch)

    found = None
    for seed in range(SEEDS_MAX):
        try:
            simulate(seed, planted.faults, planted.acts)
        except SimulationFailed as failure:
            found = failure.cause
            if re.search(planted.check.value, found):
                break
    else:
        pytest.fail(f"{SEEDS_MAX} seeds have not found it by {planted.check.name}; the last said: {found}")


def test_the_planted_bugs_are_those_of_the_document() -> None:
    table = DOCUMENT.read_text().partition("| bug | found by |\n")[2].partition("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines()][1:]

    assert len(PLANTED) >= 20
    assert rows == [(planted.name, planted.check.name.lower()) for planted in PLANTED]


def test_every_check_is_described_and_finds_a_bug() -> None:
    described = re.findall(r"^\| (\w+) \| ", DOCUMENT.read_text(), re.MULTILINE)

    for check in Check:
        assert check.name.lower() in described
        assert any(planted.check is check for planted in PLANTED), check
