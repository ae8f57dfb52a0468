"""Errors: one tree, and one class for each code."""

import pytest

from tq.core import errors
from tq.core.errors import CODES, BrokerError, ErrorCode, TaskQueueError, broker_error


def test_every_code_means_something_and_has_one_class() -> None:
    kinds = [kind for kind in BrokerError.__subclasses__() if kind.__module__ == errors.__name__]

    assert set(CODES) == set(ErrorCode)
    assert sorted(kind.code.value for kind in kinds) == sorted(code.value for code in ErrorCode)


def test_every_error_of_the_module_is_in_the_tree() -> None:
    raised = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]

    assert all(issubclass(each, TaskQueueError) for each in raised)
    assert all(each.__doc__ for each in raised)


@pytest.mark.parametrize("code", list(ErrorCode), ids=str)
def test_a_code_from_the_wire_becomes_its_error(code: ErrorCode) -> None:
    error = broker_error(code.value, "why", 500)

    assert type(error) is not BrokerError
    assert (error.code, str(error), error.retry_after_ms) == (code, "why", 500)
    assert error.retryable is CODES[code].retryable


def test_a_code_of_a_later_version_is_a_plain_broker_error() -> None:
    error = broker_error("too_wet", "it rains")

    assert (type(error), str(error), error.retryable) == (BrokerError, "it rains", False)


def test_an_explanation_is_a_sentence() -> None:
    assert all(meaning.explanation.endswith(".") for meaning in CODES.values())
