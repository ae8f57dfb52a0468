"""Tasks: what a spec may say, how a task is built, and what stays readable later."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tq.core.errors import NotSerializable
from tq.core.ids import TaskId, compose, format_id
from tq.core.limits import NAME_LENGTH_MAX
from tq.core.retry import RetryPolicy
from tq.core.task import LOSSES_LIMIT, RECORD_FORMAT, RESULT_TTL_MS_MAX, TIMEOUT_MS_MAX, Task, TaskRecord, TaskSpec
from tq.core.times import Timestamp

ID = TaskId(compose(Timestamp(1), 1))


def test_the_defaults_can_be_honoured() -> None:
    TaskSpec("mail.send").check()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": ""}, "a task name has 1 to 255 characters; got 0"),
        ({"name": "x" * (NAME_LENGTH_MAX + 1)}, "got 256"),
        ({"queue": "two words"}, "a queue name"),
        ({"priority": -1}, "priority must be 0 to 255; got -1"),
        ({"priority": 256}, "priority"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": TIMEOUT_MS_MAX + 1}, "timeout_ms"),
        ({"result_ttl_ms": -1}, "result_ttl_ms"),
        ({"result_ttl_ms": RESULT_TTL_MS_MAX + 1}, "result_ttl_ms"),
        ({"max_losses": 0}, "max_losses"),
        ({"max_losses": LOSSES_LIMIT + 1}, "max_losses"),
        ({"name": 5}, "a task name is text; got 5"),
        ({"name": "\ud800"}, r"a task name is text that UTF-8 can encode; got '\\ud800'"),
        ({"queue": 5}, "a queue name is text; got 5"),
        ({"priority": 128.0}, "priority must be a whole number, 0 to 255; got 128.0"),
        ({"priority": True}, "priority must be a whole number"),
        ({"timeout_ms": "5"}, "timeout_ms must be a whole number"),
        ({"result_ttl_ms": 0.5}, "result_ttl_ms must be a whole number"),
        ({"max_losses": None}, "max_losses must be a whole number"),
        ({"retry": 3}, "retry must be a RetryPolicy; got 3"),
        ({"codec": ["json"]}, "codec must be one of"),
        ({"codec": "pickle"}, "codec must be one of msgpack, json; got 'pickle'"),
    ],
)
def test_a_spec_that_cannot_be_honoured_names_the_field(fields: dict[str, object], named: str) -> None:
    spec = msgspec.structs.replace(TaskSpec("t"), **fields)

    with pytest.raises(ValueError, match=named):
        spec.check()


def test_a_task_is_built_word_by_word() -> None:
    policy = RetryPolicy(max_attempts=2)

    task = (
        Task.build("mail.send")
        .args("a@b.c", subject="hi")
        .queue("mail")
        .priority("high")
        .timeout(30)
        .keep_result(0)
        .retry(policy)
        .id(ID)
        .task()
    )

    spec = TaskSpec("mail.send", "mail", 212, timeout_ms=30_000, result_ttl_ms=0, retry=policy)
    assert task == Task(spec, msgspec.msgpack.encode([["a@b.c"], {"subject": "hi"}]), ID)


@pytest.mark.parametrize("form", [str, str.upper, UUID, lambda text: text.replace("-", "")])
def test_an_id_may_be_given_as_text_or_as_a_uuid(form: Callable[[str], str | UUID]) -> None:
    assert Task.build("t").id(form(format_id(ID))).task().id == ID


@pytest.mark.parametrize("wrong", ["42", "", 42, UUID(int=7), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"])
def test_an_id_of_another_kind_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a task id is a UUID"):
        Task.build("t").id(wrong)


def test_a_task_without_words_has_the_defaults_and_no_arguments() -> None:
    assert Task.build("t").task() == Task(TaskSpec("t"), msgspec.msgpack.encode([[], {}]))


def test_a_word_out_of_bounds_is_refused_at_once() -> None:
    builder = Task.build("t")

    with pytest.raises(ValueError, match="queue name"):
        builder.queue("no good")
    with pytest.raises(ValueError, match="priority"):
        builder.priority(256)
    with pytest.raises(ValueError, match="duration"):
        builder.timeout(-1)
    with pytest.raises(ValueError, match="result_ttl_ms"):
        builder.keep_result(10_000_000_000)

    assert builder.task() == Task.build("t").task()


def test_a_name_is_checked_at_the_end_at_the_latest() -> None:
    with pytest.raises(ValueError, match="a task name"):
        Task.build("").task()


@pytest.mark.parametrize("argument", [object(), 2**70, "\ud800"])
def test_arguments_that_cannot_be_encoded_are_refused(argument: object) -> None:
    with pytest.raises(NotSerializable, match="task 't': its arguments cannot be encoded"):
        Task.build("t").args(argument).task()


def test_a_record_of_an_older_writer_that_knew_fewer_fields_is_read() -> None:
    spec = msgspec.msgpack.decode(msgspec.msgpack.encode(TaskSpec("t")))
    older = msgspec.msgpack.encode([RECORD_FORMAT, ID, spec[:3], b"p", 7])

    record = msgspec.msgpack.decode(older, type=TaskRecord)

    assert record == TaskRecord(RECORD_FORMAT, ID, TaskSpec("t"), b"p", 7)


def test_what_is_shown_of_a_task_has_no_argument() -> None:
    task = Task.build("login").args("hunter2").task()
    record = TaskRecord(1, bytes(16), task.spec, task.payload, 0)

    assert f"payload=<{len(task.payload)} bytes>" in repr(task)
    assert f"payload=<{len(task.payload)} bytes>" in repr(record)
    assert "hunter2" not in repr((task, record))
