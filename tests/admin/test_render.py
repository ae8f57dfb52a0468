"""Output: tables that a terminal and a pipe can both read, and documents that a program can."""

import io
import json

import pytest

from tq.admin.answer import Answer, Facts, Listing
from tq.admin.render import print_answer, print_error, printable


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


LONG = "x" * 300
ANSWER = Answer(
    [{"queue": "mail", "ready": 12_345}],
    [
        Facts([("queue", "mail"), ("state", "active"), ("reason", None)]),
        Listing(("QUEUE", "READY"), [("mail", 12_345), ("[b]odd[/b]", 7), (LONG, 0)], "There are none."),
    ],
)


def printed(answer: Answer, stream: io.StringIO | None = None, *, as_json: bool = False) -> str:
    stream = stream or io.StringIO()
    print_answer(answer, stream, as_json=as_json)
    return stream.getvalue()


def test_json_is_one_document_and_nothing_else() -> None:
    assert json.loads(printed(ANSWER, as_json=True)) == [{"queue": "mail", "ready": 12_345}]


def test_a_listing_has_a_header_and_a_line_a_row() -> None:
    lines = printed(ANSWER).splitlines()

    cells = [line.split() for line in lines]
    assert cells[:3] == [["queue", "mail"], ["state", "active"], []]
    assert cells[3:] == [["QUEUE", "READY"], ["mail", "12,345"], ["[b]odd[/b]", "7"], [LONG, "0"]]


def test_a_pipe_gets_no_colours_and_whole_lines() -> None:
    text = printed(ANSWER)

    assert "\x1b" not in text
    assert LONG in text


def test_a_terminal_gets_a_bold_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert "\x1b[1m" in printed(ANSWER, Terminal())


def test_a_narrow_terminal_folds_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    assert LONG in printed(ANSWER, Terminal())


def test_numbers_end_at_the_same_column() -> None:
    lines = [line.rstrip() for line in printed(ANSWER).splitlines() if "mail" in line or "odd" in line]

    assert len(lines[-1]) == len(lines[-2])


def test_a_listing_without_rows_says_so() -> None:
    answer = Answer([], [Listing(("QUEUE",), [], "There are no queues yet.")])

    assert printed(answer) == "There are no queues yet.\n"
    assert json.loads(printed(answer, as_json=True)) == []


def test_a_cell_without_a_value_is_a_dash() -> None:
    answer = Answer([], [Listing(("A", "B", "C"), [(None, "", 0)], "")])

    assert printed(answer).splitlines()[1].split() == ["-", "-", "0"]


def test_nothing_from_outside_reaches_the_terminal_as_a_control_character() -> None:
    evil = "\x1b[2Jgone\r\x07\x9b"
    answer = Answer([], [evil, Facts([("name", evil)]), Listing(("NAME",), [(evil,)], "")])

    text = printed(answer)

    assert not {"\x1b", "\r", "\x07", "\x9b"} & set(text)
    assert text.count(r"\x1b[2Jgone\r\x07\x9b") == 3


def test_a_traceback_keeps_its_lines() -> None:
    assert printable("a\n\tb é 漢") == "a\n\tb é 漢"


def test_an_error_is_a_sentence_or_an_object() -> None:
    text, object_ = io.StringIO(), io.StringIO()

    print_error("queue_not_found", "no queue 'x\x1b'", 1, text, as_json=False)
    print_error("queue_not_found", "no queue 'x'", 1, object_, as_json=True)

    assert text.getvalue() == "tq-admin: no queue 'x\\x1b'\n"
    assert json.loads(object_.getvalue()) == {
        "error": {"code": "queue_not_found", "text": "no queue 'x'", "exit_code": 1}
    }
