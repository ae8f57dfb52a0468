"""The simulator is worth what it finds: a bug that is planted must be found by one of its first seeds."""

import pytest

from tests.simulation.planted import PLANTED, Planted
from tq.testing.scenario import Fault
from tq.testing.simulator import SimulationFailed, simulate

# Each is found by an eighth of the seeds, or more.
SEEDS_MAX = 60


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.plant.__name__)
def test_a_planted_bug_is_found(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="tq")
    planted.plant(monkeypatch)

    with pytest.raises(SimulationFailed, match=r"seed \d+: "):
        simulate_all(planted.faults)


def simulate_all(faults: list[Fault] | None) -> None:
    for seed in range(SEEDS_MAX):
        simulate(seed, faults)
