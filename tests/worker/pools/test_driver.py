"""The driver: coroutines in a thread without a loop."""

import asyncio
import gc
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from tq.worker.pools.driver import Driver


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = Driver()
    yield made
    made.close()


def test_coroutines_of_one_thread_share_a_loop(driver: Driver) -> None:
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert driver(loop()) is driver(loop())


def test_a_coroutine_sees_the_context_of_its_caller_and_keeps_its_own_to_itself(driver: Driver) -> None:
    mark: ContextVar[str] = ContextVar("mark")
    mark.set("caller's")

    async def work() -> str:
        seen = mark.get()
        mark.set("handler's")
        return seen

    assert driver(work()) == "caller's"
    assert mark.get() == "caller's"


def test_an_exception_comes_out_as_it_is(driver: Driver) -> None:
    async def work() -> None:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        driver(work())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_the_loop_cancels_the_coroutine_and_says_where_it_stood(
    driver: Driver, kind: type[BaseException]
) -> None:
    steps: list[str] = []

    async def interrupted() -> None:
        asyncio.get_running_loop().call_soon(_raise, kind)
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("put in order")

    async def after() -> str:
        await asyncio.sleep(0)
        return "after"

    with pytest.raises(kind) as caught:
        driver(interrupted())

    assert "interrupted" in [entry.name for entry in caught.traceback]
    assert steps == ["put in order"]
    assert driver(after()) == "after"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_one_that_the_coroutine_raises_comes_out_too(driver: Driver, kind: type[BaseException]) -> None:
    async def work() -> None:
        raise kind

    with pytest.raises(kind):
        driver(work())
    gc.collect()  # would warn of an exception that nobody asked for


def test_a_coroutine_that_does_not_heed_its_cancellation_is_interrupted_when_it_ends(driver: Driver) -> None:
    async def stubborn() -> str:
        asyncio.get_running_loop().call_soon(_raise, KeyboardInterrupt)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "done all the same"

    with pytest.raises(KeyboardInterrupt):
        driver(stubborn())


def test_closing_it_without_use_or_twice_is_no_trouble(driver: Driver) -> None:
    driver.close()
    driver.close()


def _raise(error: type[BaseException]) -> None:
    raise error
