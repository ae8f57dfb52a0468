"""docs/lifecycle.md shows the table that the engine runs on."""

import re
from pathlib import Path

from tq.core.lifecycle import DeadReason, TaskState, diagram

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md").read_text(encoding="utf-8")


def test_the_diagram_is_the_one_of_the_table() -> None:
    drawn = re.findall(r"^```mermaid\n(.*?)\n```$", TEXT, flags=re.MULTILINE | re.DOTALL)

    assert drawn == [diagram()]


def test_every_state_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)

    assert set(explained) == {state.value for state in TaskState}


def test_every_reason_of_a_dead_letter_is_named() -> None:
    assert not [reason.value for reason in DeadReason if f"`{reason.value}`" not in TEXT]
