"""Handlers that misbehave in ways that reach beyond their own task."""

from collections.abc import Callable

import pytest

from tests.worker.test_executor import Way, failure_of, in_a_thread, on_the_loop, raising
from tq.core.outcome import Retry
from tq.core.retry import BACKOFF_MS_MAX
from tq.protocol.codec import encode_message
from tq.protocol.messages import Failure, Settle


@pytest.mark.parametrize("after", [1e17, 1e300])
def test_a_retry_after_the_end_of_the_world_can_be_settled(after: float) -> None:
    failed = failure_of(raising(Retry(after)))

    assert failed.retry_after_ms is not None
    assert failed.retry_after_ms <= BACKOFF_MS_MAX
    # Else: OverflowError in Dispatcher._turn, and every outcome of the same batch is lost with it.
    encode_message(Settle([], [Failure(1, 0, failed.failure, failed.retry_after_ms)]), 1)


class Halt(BaseException):
    """As SystemExit and KeyboardInterrupt, which would also end this test run: on a loop they end the worker."""


class StopsInItsText(Exception):
    def __str__(self) -> str:
        raise Halt


class HasNoText(Exception):
    def __repr__(self) -> str:
        raise RuntimeError

    def __str__(self) -> str:
        raise self


class Surrogate(Exception):
    pass


Surrogate.__qualname__ = "E\ud800"


def failing(error: BaseException) -> Callable[[], object]:
    async def work() -> object:
        raise error

    return work


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
@pytest.mark.parametrize("error", [StopsInItsText(), HasNoText(), Surrogate()])
def test_an_exception_whose_text_cannot_be_made_is_a_failure_like_others(error: Exception, way: Way) -> None:
    function = failing(error) if way is on_the_loop else raising(error)

    failed = failure_of(function, way=way)

    encode_message(Settle([], [Failure(1, 0, failed.failure)]), 1)
