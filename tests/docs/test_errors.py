"""docs/errors.md says of every error what the code says."""

import re
from pathlib import Path

import pytest

from tq.client.errors import EnqueueRefused, ResultTimeout
from tq.core import errors
from tq.core.errors import CODES, ErrorCode, TaskQueueError, broker_error
from tq.core.outcome import TaskCancelled, TaskDead, TaskError

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")

# What a client raises beside the classes of `tq.core.errors`.
ELSEWHERE: dict[str, type[TaskQueueError]] = {
    each.__name__: each for each in (EnqueueRefused, ResultTimeout, TaskError, TaskDead, TaskCancelled)
}


def table() -> dict[str, list[str]]:
    """The cells of the table of codes, by code."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", TEXT, flags=re.MULTILINE)
    return {code: cells.split(" | ") for code, cells in rows}


def tree() -> list[tuple[int, str]]:
    """The classes of the tree of what a client raises, each with its depth."""
    section = TEXT.partition("## Everything a client raises")[2].partition("\n## ")[0]
    return [(len(dents) // 2, name) for dents, name in re.findall(r"^ {4}( *)([A-Z]\w+)", section, flags=re.MULTILINE)]


def named(name: str) -> type[TaskQueueError]:
    kind: type[TaskQueueError] = ELSEWHERE[name] if name in ELSEWHERE else getattr(errors, name)
    return kind


def test_the_table_has_every_code_in_the_order_of_the_code() -> None:
    assert list(table()) == [code.value for code in CODES]


@pytest.mark.parametrize("code", list(ErrorCode), ids=str)
def test_the_table_says_of_a_code_what_the_broker_does(code: ErrorCode) -> None:
    meaning = CODES[code]
    kind = type(broker_error(code.value, ""))

    cells = table()[code.value]

    yes = {True: "yes", False: "no"}
    assert cells == [f"`{kind.__name__}`", yes[meaning.retryable], yes[meaning.closes], meaning.explanation]


def test_the_tree_of_what_a_client_raises_is_that_of_the_classes() -> None:
    above: list[type[TaskQueueError]] = []

    for depth, name in tree():
        kind = named(name)
        del above[depth:]
        assert above == [] if kind is TaskQueueError else kind.__bases__[0] is above[-1]
        above.append(kind)

    assert len(tree()) > len(ELSEWHERE)


def test_the_tree_leaves_out_no_class_made_for_the_caller() -> None:
    named_there = {name for _, name in tree()}

    kinds = {"UsageError", "BrokerError", "TransportError", "TaskError", *ELSEWHERE}
    below = {each.__name__ for kind in (errors.UsageError, errors.TransportError) for each in kind.__subclasses__()}

    assert kinds | below <= named_there
