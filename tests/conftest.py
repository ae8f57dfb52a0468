"""What every test stands on: hypothesis settings for a busy machine, and a loop for tests that are coroutines."""

import asyncio
import inspect
import signal

import pytest
from hypothesis import settings

# A deadline for one example measures the neighbours of this process more than the code under test.
settings.register_profile("tq", deadline=None, print_blob=True)
settings.load_profile("tq")

# A shell that runs the suite in the background lets it ignore Ctrl-C, and so would all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in arguments}))
    return True
