"""Answers: what of a view goes into its document, and in what form."""

import msgspec
import pytest

from tq.admin.answer import at, counted, document, in_line, instant
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskFailure
from tq.core.priority import Priority
from tq.core.task import TaskView
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo, WorkerView
from tq.protocol.messages import Pong

ID = bytes.fromhex("018f4e2c7b1a70008000 3f2a9c1b5d6e")
ID_TEXT = "018f4e2c-7b1a-7000-8000-3f2a9c1b5d6e"
NOON = Timestamp(1_795_500_303_120)
NOON_TEXT = "2026-11-24T06:05:03.120Z"


def test_a_task_is_told_without_its_result_and_with_readable_ids_and_times() -> None:
    view = TaskView(
        id=ID,
        name="mail.send",
        queue="mail",
        state=TaskState.DEAD,
        priority=Priority(128),
        enqueued_at=NOON,
        failure=TaskFailure("ValueError", "no"),
        result=b"secret",
    )

    told = document(view)

    assert isinstance(told, dict)
    assert told["id"] == ID_TEXT
    assert told["state"] == "dead"
    assert told["enqueued_at"] == NOON_TEXT
    assert told["finished_at"] is None
    assert told["failure"] == {"type": "ValueError", "message": "no", "traceback": ""}
    assert not {"result", "payload", "codec"} & set(told)
    assert b"secret" not in msgspec.json.encode(told)


def test_the_names_of_an_object_are_text() -> None:
    assert document({255: 1, "a": NOON}) == {"255": 1, "a": NOON}


def test_a_worker_has_its_session_as_text() -> None:
    info = WorkerInfo("w1", "host", 7, "async", 10, ["mail.send"])
    view = WorkerView(
        session=ID,
        info=info,
        queues=["mail"],
        connected=True,
        registered_at=NOON,
        seen_at=NOON,
        held=1,
        started=1,
    )

    told = document([view])

    assert isinstance(told, list)
    assert isinstance(told[0], dict)
    assert told[0]["session"] == ID_TEXT
    assert told[0]["seen_at"] == NOON_TEXT
    assert told[0]["info"] == {
        "name": "w1",
        "host": "host",
        "pid": 7,
        "pool": "async",
        "concurrency": 10,
        "tasks": ["mail.send"],
        "version": "",
        "labels": {},
    }


def test_a_clock_is_an_instant() -> None:
    assert document(Pong("tq/0.1.0", NOON)) == {"server": "tq/0.1.0", "clock_at": NOON_TEXT}


def test_what_json_does_not_have_is_a_bug_of_ours() -> None:
    with pytest.raises(TypeError, match="a view holds no object"):
        document(object())


def test_an_instant_is_told_in_utc() -> None:
    assert instant(0) == "1970-01-01T00:00:00.000Z"
    assert instant(NOON) == NOON_TEXT
    assert at(NOON) == "2026-11-24 06:05:03Z"
    assert at(None) is None


@pytest.mark.parametrize(
    "number, text", [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1_234_567, "1,234,567 tasks")]
)
def test_a_count_agrees_with_its_noun(number: int, text: str) -> None:
    assert counted(number, "task") == text


@pytest.mark.parametrize("text, line", [("a\n  b\tc", "a b c"), ("abcdef", "abcdef"), ("abcdefg", "abcde…"), ("", "")])
def test_a_text_fits_in_a_line(text: str, line: str) -> None:
    assert in_line(text, 6) == line
