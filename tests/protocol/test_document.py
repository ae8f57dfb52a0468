"""docs/protocol.md says what the code does: every message, number, field, default, sender, reply and code."""

import enum
import re
from pathlib import Path

import msgspec
import pytest

from tq.core.errors import CODES
from tq.core.lease import DeliveryRef
from tq.core.outcome import Done, FailedAttempt, TaskFailure, TaskResult
from tq.core.queue import QueueView
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskRecord, TaskSpec, TaskView
from tq.core.worker import WorkerInfo, WorkerView
from tq.protocol import states
from tq.protocol.codec import decode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MESSAGES, Held, Limits, QueueWeight, RefusedCancel, RefusedEnqueue, Role, Type

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+)\n\n((?:(?!^##).*\n)*)", TEXT, flags=re.MULTILINE))
VALUES: list[type[msgspec.Struct]] = [
    DeliveryRef,
    Done,
    FailedAttempt,
    Held,
    Limits,
    NewTask,
    QueueView,
    QueueWeight,
    RefusedCancel,
    RefusedEnqueue,
    RetryPolicy,
    TaskFailure,
    TaskRecord,
    TaskResult,
    TaskSpec,
    TaskView,
    WorkerInfo,
    WorkerView,
]
WORDS: dict[str, object] = {"nil": None, "true": True, "false": False, "[]": [], "its defaults": RetryPolicy()}


def section_of(kind: type[msgspec.Struct]) -> str:
    numbers = [number for number, row in MESSAGES.items() if row.kind is kind]
    section: str = SECTIONS[f"{numbers[0]} {kind.__name__}" if numbers else kind.__name__]
    return section


def rows(section: str) -> list[list[str]]:
    lines = re.findall(r"^\|(.*)\|$", section, flags=re.MULTILINE)
    # The first two are the table's head.
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def meant(default: str) -> object:
    """The value that a table's cell stands for."""
    if not default:
        return msgspec.NODEFAULT
    return WORDS[default] if default in WORDS else msgspec.json.decode(default)


def default_of(field: msgspec.structs.FieldInfo) -> object:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


@pytest.mark.parametrize("kind", [*(row.kind for row in MESSAGES.values()), *VALUES], ids=lambda kind: kind.__name__)
def test_every_field_is_in_its_table_in_its_order_with_its_default(kind: type[msgspec.Struct]) -> None:
    fields = msgspec.structs.fields(kind)
    table = rows(section_of(kind))

    assert [row[0] for row in table] == [field.name for field in fields]
    assert [meant(row[2]) for row in table] == [default_of(field) for field in fields]
    assert table or "No fields." in section_of(kind)


@pytest.mark.parametrize("kind", [*(row.kind for row in MESSAGES.values()), *VALUES], ids=lambda kind: kind.__name__)
def test_what_is_a_map_is_marked(kind: type[msgspec.Struct]) -> None:
    assert ("*map*" in section_of(kind)) is not kind.__struct_config__.array_like


@pytest.mark.parametrize("number", Type, ids=lambda number: number.name)
def test_every_message_says_who_sends_it_and_what_answers(number: Type) -> None:
    row = MESSAGES[number]
    section = " ".join(section_of(row.kind).split("|")[0].split())
    pushed_to = [role.value for role in Role if number in states.PUSHED_TO[role]]

    if row.sent_by is not None:
        expected = f"Sent by {', '.join(role.value for role in Role if role in row.sent_by)}; " + (
            f"answered by `{row.reply.__name__}`" if row.reply else "a notice"
        )
    elif pushed_to:
        expected = f"Pushed to {', '.join(pushed_to)}"
    else:
        expected = "Sent by the broker"
    assert section.startswith(expected)


def test_no_section_describes_what_is_not_there() -> None:
    names = {f"{number} {row.kind.__name__}" for number, row in MESSAGES.items()}

    assert set(SECTIONS) == names | {kind.__name__ for kind in VALUES}


def test_every_code_is_in_the_table_with_its_flags() -> None:
    section = TEXT[TEXT.index("## Errors") : TEXT.index("## Exactly once")]

    assert rows(section) == [
        [code.value, *("yes" if flag else "no" for flag in meaning[:2])] for code, meaning in CODES.items()
    ]


def test_the_life_of_a_connection_is_drawn_as_the_code_draws_it() -> None:
    drawing = (states.__doc__ or "").split("\n\n")[1]

    assert drawing in TEXT


def test_the_example_is_what_a_client_sends() -> None:
    [example] = re.findall(r"```hex\n(.*?)```", TEXT, flags=re.DOTALL)

    frames = FrameReader().feed(bytes.fromhex(example))

    assert [type(decode_message(frame.kind, frame.body)).__name__ for frame in frames] == [
        "Hello",
        "Enqueue",
        "Enqueued",
    ]


def test_choices_are_those_of_the_code() -> None:
    for kind in (row.kind for row in MESSAGES.values()):
        for field, row in zip(msgspec.structs.fields(kind), rows(section_of(kind)), strict=True):
            if isinstance(field.type, type) and issubclass(field.type, enum.Enum):
                assert row[1] == " or ".join(f'"{choice.value}"' for choice in field.type)
