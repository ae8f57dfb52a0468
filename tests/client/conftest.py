"""Fixtures of the client's tests: a broker to talk to, and a loop for tests that are coroutines."""

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from tests.client.scripted import ScriptedBroker
from tq.app.embedded import EmbeddedDialer
from tq.client.dialer import Dialer


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    """A broker that can be told to misbehave."""
    with ScriptedBroker() as broker:
        yield broker


@pytest.fixture
def broker() -> Iterator[Dialer]:
    """The way to a real broker, on memory, that is gone after the test."""
    dialer = EmbeddedDialer()
    yield dialer
    dialer.close()
