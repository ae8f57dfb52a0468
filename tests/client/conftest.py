"""Fixtures of the client's tests: a broker to talk to."""

from collections.abc import Iterator

import pytest

from tests.client.scripted import ScriptedBroker
from tq.app.embedded import MemoryDialer
from tq.client.dialer import Dialer


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    """A broker that can be told to misbehave."""
    with ScriptedBroker() as broker:
        yield broker


@pytest.fixture
def broker() -> Iterator[Dialer]:
    """The way to a real broker, on memory, that is gone after the test."""
    dialer = MemoryDialer()
    yield dialer
    dialer.close()
