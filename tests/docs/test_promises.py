"""The promises of ARCHITECTURE.md are shown by tests and checks that exist."""

import re
from pathlib import Path

import pytest

from tests.simulation.planted import Check

ROOT = Path(__file__).parents[2]
PROMISES = (ROOT / "ARCHITECTURE.md").read_text().partition("## The promises")[2].partition("\n## ")[0]
ROWS = [line.split(" | ") for line in PROMISES.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("| "))
def test_a_promise_names_where_it_is_kept_and_tests_that_exist(row: list[str]) -> None:
    _, kept, shown = row

    for place in re.findall(r"`([a-z_/]+\.py)`", kept):
        assert (ROOT / "src" / "tq" / place).exists(), place
    tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
    assert tests
    for path, name in tests:
        assert re.search(rf"def {name}\(", (ROOT / path).read_text()), f"{path}::{name}"


def test_the_checks_of_the_simulator_that_promises_name_exist() -> None:
    named = {
        check
        for row in ROWS
        for checks in re.findall(r"simulator: ([a-z, ]+[a-z])", row[2])
        for check in checks.split(", ")
    }

    assert named
    assert named <= {check.name.lower() for check in Check}
