"""The chain: hooks that cost nothing where there are none, and cannot change an outcome."""

import logging

import pytest

from tq.app.context import TaskContext
from tq.app.middleware import Middleware
from tq.core.outcome import TaskFailure
from tq.worker.assignment import Failed
from tq.worker.middleware import Chain

CONTEXT = TaskContext(bytes(16), "work", "default", 1, 0, 1, 0, 0.0, "w")
FAILURE = TaskFailure("ValueError", "no good")


class OnlyAfter(Middleware):
    def __init__(self) -> None:
        self.calls: list[TaskFailure | None] = []

    def after(self, context: TaskContext, failure: TaskFailure | None) -> None:
        self.calls.append(failure)


class Broken(Middleware):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error

    def after(self, context: TaskContext, failure: TaskFailure | None) -> None:
        raise self.error


def test_only_hooks_that_are_overridden_are_in_the_chain() -> None:
    chain = Chain([Middleware(), OnlyAfter(), Middleware()])

    assert (len(chain._before), len(chain._after)) == (0, 1)


def test_hooks_afterwards_are_told_how_the_attempt_failed_if_it_did() -> None:
    watching = OnlyAfter()
    chain = Chain([watching])

    for outcome in (b"result", None, Failed(FAILURE)):
        chain.after(CONTEXT, outcome)

    assert watching.calls == [None, None, FAILURE]


@pytest.mark.parametrize("error", [RuntimeError("metrics are down"), SystemExit("metrics are down")])
def test_a_hook_that_raises_afterwards_is_logged_and_the_others_run(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    watching = OnlyAfter()
    chain = Chain([watching, Broken(error)])

    with caplog.at_level(logging.ERROR):
        chain.after(CONTEXT, b"r")

    assert watching.calls == [None]
    assert "metrics are down" in caplog.text
    assert "work" in caplog.text
