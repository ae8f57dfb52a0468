"""Options: from how people write them to what the broker is told, and what is refused."""

from typing import Any

import pytest

from tq.app.options import OPTIONS, Declaration, check_exceptions, spec_with
from tq.core.errors import UsageError
from tq.core.retry import RetryPolicy
from tq.core.task import TaskSpec

SPEC = TaskSpec("mail.send")


def test_no_options_are_the_defaults() -> None:
    assert spec_with(SPEC, {}) == SPEC


def test_every_option_reaches_the_spec() -> None:
    spec = spec_with(
        SPEC,
        {
            "queue": "mail",
            "priority": "HIGH",
            "retry": RetryPolicy(max_attempts=2),
            "timeout": 0.5,
            "result_ttl": 0,
            "max_losses": 1,
            "codec": "json",
        },
    )

    assert spec == TaskSpec("mail.send", "mail", 212, 500, 0, RetryPolicy(max_attempts=2), 1, "json")


def test_the_options_of_a_spec_are_those_of_a_declaration() -> None:
    assert set(OPTIONS) | {"name", "reject_on", "redact", "soft_timeout"} == set(Declaration.__annotations__)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"queue": "a b"}, "a queue name has"),
        ({"queue": None}, "queue: expected str, got null"),
        ({"priority": "urgent"}, "priority: .*'low', 'normal' or 'high'; got 'urgent'"),
        ({"priority": 256}, "priority: .*got 256"),
        ({"priority": True}, "priority: expected int | str, got bool"),
        ({"retry": 3}, r"retry is a RetryPolicy.*got 3"),
        ({"timeout": -1}, "timeout: a duration must be"),
        ({"timeout": 0}, "timeout_ms must be 1 to"),
        ({"timeout": "5"}, "timeout: expected float, got str"),
        ({"timeout": float("nan")}, "timeout: a duration must be"),
        ({"result_ttl": 1e9}, "result_ttl_ms must be 0 to"),
        ({"max_losses": 0}, "max_losses must be 1 to"),
        ({"max_losses": 2.5}, "max_losses: expected int, got float"),
        ({"codec": "pickle"}, "codec must be one of msgpack, json"),
        ({"que": "mail", "queue": "mail"}, "has no option que; there are queue, priority"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        spec_with(SPEC, options)

    assert str(caught.value).count("'mail.send'") == 1


def test_exception_types_are_checked_where_they_are_declared() -> None:
    assert check_exceptions("mail.send", (ValueError, KeyError)) == (ValueError, KeyError)


@pytest.mark.parametrize("reject_on", [ValueError, [ValueError], ("ValueError",), (int,), None])
def test_what_is_no_tuple_of_exception_types_is_refused(reject_on: object) -> None:
    with pytest.raises(UsageError, match=r"task 'mail.send': reject_on is a tuple of exception types"):
        check_exceptions("mail.send", reject_on)
