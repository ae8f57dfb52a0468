"""Logs: one line an entry, whoever wrote it."""

import contextvars
import io
import json
import logging

import pytest
import structlog

from tq.app.context import TaskContext, add_task_fields, enter
from tq.bin.logs import configure


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_has_an_object_a_line_with_the_fields_of_the_entry() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)

    structlog.get_logger("tq.broker").info("listening", port=7766, session=b"\x01", path=ValueError("x"))

    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "listening",
        "level": "info",
        "logger": "tq.broker",
        "port": 7766,
        "session": "AQ==",
        "path": "x",
    }


@pytest.mark.parametrize("text", ["a\udcffb", "a\ud800"])
def test_text_that_utf_8_cannot_encode_is_spelled(text: str) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)

    logging.getLogger("mail").info("sent %s", text, extra={"to": [{text: ValueError(text)}], "size": 3})

    entry = json.loads(stream.getvalue())
    spelled = text.encode("ascii", "backslashreplace").decode()
    assert (entry["event"], entry["to"], entry["size"]) == (f"sent {spelled}", [{spelled: spelled}], 3)


def test_an_entry_of_the_standard_library_has_its_extras_as_fields() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)

    logging.getLogger("mail").warning("sent %d", 3, extra={"task_id": "018f"})

    entry = json.loads(stream.getvalue())
    assert (entry["event"], entry["level"], entry["logger"], entry["task_id"]) == (
        "sent 3",
        "warning",
        "mail",
        "018f",
    )


def test_entries_of_both_kinds_say_which_task_they_were_said_in() -> None:
    stream = io.StringIO()
    configure("info", "json", stream, [add_task_fields])

    def handler() -> None:
        enter(TaskContext(bytes(16), "mail.send", "mail", 2, 0, 1, 0, 0.0, "w"))
        logging.getLogger("mail").info("sent")
        structlog.get_logger("mail").info("sent", task_queue="the entry's own")

    contextvars.copy_context().run(handler)
    logging.getLogger("mail").info("outside")

    standard, structured, outside = map(json.loads, stream.getvalue().splitlines())
    task = {"task_id": "00000000-0000-0000-0000-000000000000", "task_name": "mail.send", "task_attempt": 2}
    assert standard.items() >= {**task, "task_queue": "mail"}.items()
    assert structured.items() >= {**task, "task_queue": "the entry's own"}.items()
    assert not {"task_id", "task_name"} & outside.keys()


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_told_with_its_traceback(form: str) -> None:
    stream = io.StringIO()
    configure("info", form, stream)

    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger("a").exception("failed")
        logging.getLogger("b").exception("failed")

    assert stream.getvalue().count("ZeroDivisionError: division by zero") == 2


def test_what_a_task_says_does_not_steer_the_terminal() -> None:
    stream = Terminal()
    configure("info", "console", stream)

    logging.getLogger("b").error("failed: \x1b[2Jgone", exc_info=ValueError("\x1b[2Jgone"))

    assert "\x1b[2J" not in stream.getvalue()
    assert stream.getvalue().count(r"\x1b[2Jgone") == 2


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_less_severe_than_the_level_is_left_out(form: str) -> None:
    stream = io.StringIO()
    configure("warning", form, stream)

    structlog.get_logger().info("quiet")
    logging.getLogger("b").info("quiet")

    assert stream.getvalue() == ""


def test_colours_are_for_terminals() -> None:
    plain, terminal = io.StringIO(), Terminal()

    for stream in (plain, terminal):
        configure("info", "console", stream)
        structlog.get_logger("tq").warning("look", at="this")

    assert "\x1b[" not in plain.getvalue()
    assert "look" in plain.getvalue()
    assert "at=this" in plain.getvalue()
    assert "\x1b[" in terminal.getvalue()


def test_colours_can_be_asked_for_where_no_terminal_is() -> None:
    stream = io.StringIO()
    configure("info", "console", stream, colours=True)

    logging.getLogger("shop").info("open")

    assert "\x1b[" in stream.getvalue()


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "json", first)
    configure("info", "json", second)

    logging.getLogger("b").warning("once")

    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
