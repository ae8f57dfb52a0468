"""Commands: each is one the engine knows, and a value."""

import inspect

import pytest

from tests.engine.harness import Driver
from tq.engine import commands as c

KINDS = [
    kind for _, kind in inspect.getmembers(c, inspect.isclass) if issubclass(kind, c.Command) and kind is not c.Command
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_engine_handles_every_command(kind: type) -> None:
    assert kind in Driver().engine._handlers


def test_the_engine_handles_nothing_else() -> None:
    assert Driver().engine._handlers.keys() == set(KINDS)


def test_a_command_cannot_be_changed() -> None:
    command = c.PurgeQueue("q")

    with pytest.raises(AttributeError):
        command.name = "other"  # type: ignore[misc]
