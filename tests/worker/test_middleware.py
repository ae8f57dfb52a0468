"""Middleware: hooks that cost nothing where there are none, and cannot change an outcome."""

import logging

import pytest

from tq.app.context import TaskContext
from tq.worker.assignment import Outcome
from tq.worker.middleware import Chain, Middleware

CONTEXT = TaskContext(bytes(16), "work", "default", 1, 0, 1, 0, 0.0, "w")


class OnlyAfter(Middleware):
    def __init__(self, calls: list[Outcome]) -> None:
        self.calls = calls

    def after(self, context: TaskContext, outcome: Outcome) -> None:
        self.calls.append(outcome)


class Broken(Middleware):
    def after(self, context: TaskContext, outcome: Outcome) -> None:
        raise RuntimeError("metrics are down")


def test_only_hooks_that_are_overridden_are_in_the_chain() -> None:
    chain = Chain([Middleware(), OnlyAfter([]), Middleware()])

    assert (len(chain._before), len(chain._after)) == (0, 1)


def test_a_hook_that_raises_afterwards_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[Outcome] = []
    chain = Chain([OnlyAfter(calls), Broken()])

    with caplog.at_level(logging.ERROR):
        chain.after(CONTEXT, b"r")

    assert calls == [b"r"]
    assert "metrics are down" in caplog.text
    assert "work" in caplog.text
