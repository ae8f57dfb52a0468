"""Outcomes: what is kept of a failure, and how a handler steers."""

import pytest
from hypothesis import given, strategies as st

from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import Reject, Retry, TaskDead, TaskError, TaskResult, shorten
from tq.core.times import Timestamp


@given(st.text(max_size=200), st.integers(16, 100))
def test_a_shortened_text_fits_and_keeps_its_two_ends(text: str, characters_max: int) -> None:
    short = shorten(text, characters_max)

    assert len(short) <= characters_max
    if len(text) <= characters_max:
        assert short == text
    else:
        head, _, tail = short.partition("\n...\n")
        assert text.startswith(head)
        assert text.endswith(tail)


def test_the_end_of_a_traceback_is_worth_more_than_its_beginning() -> None:
    short = shorten("a" * 50 + "b" * 50, 30)

    assert short == "a" * 5 + "\n...\n" + "b" * 20


@pytest.mark.parametrize(("error", "text"), [(Retry(), "asked for a retry"), (Reject(), "rejected the task")])
def test_a_handler_need_not_say_why(error: Exception, text: str) -> None:
    assert text in str(error)


def test_a_retry_carries_when_and_why() -> None:
    error = Retry(2.5, "rate limit")

    assert (error.after, str(error)) == (2.5, "rate limit")


def test_a_task_error_carries_the_outcome() -> None:
    outcome = TaskResult(b"i" * 16, TaskState.DEAD, Timestamp(5), reason=DeadReason.ATTEMPTS)

    error: TaskError = TaskDead("it failed", outcome)

    assert (str(error), error.outcome) == ("it failed", outcome)
