"""Limits: what one lets in the next has room for, and those who write a client are told."""

from pathlib import Path

import pytest

from tq.core import limits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
# What only the engine and the store, or a client for itself, know.
INTERNAL = {"ANSWER_BYTES_MAX", "FRAME_TASK_BYTES_MAX", "SCAN_BYTES_MAX"}
TOLD = [name for name in vars(limits) if name.isupper() and name not in INTERNAL]


def test_what_one_limit_lets_in_the_next_has_room_for() -> None:
    assert limits.FRAME_TASK_BYTES_MAX < limits.CHANGE_BYTES_MAX < limits.ANSWER_BYTES_MAX < limits.FRAME_BYTES_MAX
    assert limits.PAYLOAD_BYTES_DEFAULT_MAX <= limits.PAYLOAD_BYTES_LIMIT < limits.ANSWER_BYTES_MAX
    # The ids of a whole request, and of a whole frame of tasks, are far from filling a frame.
    assert 32 * max(limits.REQUEST_IDS_MAX, limits.FRAME_TASKS_MAX) < limits.FRAME_BYTES_MAX


def test_a_frame_of_a_client_is_a_change_also_as_the_broker_counts_it() -> None:
    most = limits.FRAME_TASK_BYTES_MAX + limits.FRAME_TASKS_MAX * limits.COUNTED_TASK_BYTES
    assert most + limits.COUNTED_FRAME_BYTES <= limits.CHANGE_BYTES_MAX


@pytest.mark.parametrize("name", TOLD)
def test_the_limits_of_the_wire_are_in_its_document(name: str) -> None:
    number = getattr(limits, name)
    assert str(number) in DOCUMENT or f"{number:,}" in DOCUMENT, f"{name} = {number:,}"


def test_every_limit_has_its_reason() -> None:
    lines = Path(limits.__file__).read_text(encoding="utf-8").splitlines()
    reasons = [lines[at + 1] for at, line in enumerate(lines) if " = " in line and line[0].isupper()]

    assert len(reasons) == len(TOLD) + len(INTERNAL)
    assert all(reason.startswith('"""') for reason in reasons)
