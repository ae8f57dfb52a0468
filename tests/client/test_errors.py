"""The client's own errors: what they carry and what they say."""

from tq.client.errors import EnqueueRefused, RefusedTask, ResultTimeout
from tq.core.errors import BrokerError, ErrorCode, TaskQueueError
from tq.core.ids import TaskId


def test_a_refusal_of_some_says_how_many_and_why_the_first() -> None:
    refused = [RefusedTask(1, ErrorCode.DUPLICATE_TASK, "exists"), RefusedTask(2, ErrorCode.STORE_FULL, "full")]

    error = EnqueueRefused(refused, [TaskId(b"a"), None, None])

    assert str(error) == "2 of 3 tasks were refused; the first is number 1: duplicate_task: exists"
    assert isinstance(error, BrokerError)
    assert error.code is ErrorCode.DUPLICATE_TASK
    assert not error.retryable


def test_a_timeout_is_one_to_whoever_catches_timeouts() -> None:
    assert issubclass(ResultTimeout, TimeoutError)
    assert issubclass(ResultTimeout, TaskQueueError)
