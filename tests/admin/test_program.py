"""The program: what goes wrong ends as an exit code and a sentence; tests/acceptance runs the rest."""

import json

import pytest

from tq.admin.answer import EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_USAGE
from tq.admin.operator import Declined
from tq.admin.program import failure_of, tell
from tq.core.errors import (
    BrokerUnavailable,
    ConfigError,
    ConnectionLost,
    QueueNotFound,
    RemoteProtocolError,
    RequestTimeout,
    UsageError,
)


@pytest.mark.parametrize(
    "error, code, exit_code",
    [
        (QueueNotFound("x"), "queue_not_found", EXIT_REFUSED),
        (Declined("x"), "declined", EXIT_REFUSED),
        (ConfigError("x"), "usage", EXIT_USAGE),
        (UsageError("x"), "usage", EXIT_USAGE),
        (BrokerUnavailable("x"), "unavailable", EXIT_UNAVAILABLE),
        (ConnectionLost("x"), "unavailable", EXIT_UNAVAILABLE),
        (RequestTimeout("x"), "unavailable", EXIT_UNAVAILABLE),
        (RemoteProtocolError("x"), "unavailable", EXIT_UNAVAILABLE),
    ],
)
def test_every_error_has_a_code_and_an_exit_code(error: Exception, code: str, exit_code: int) -> None:
    assert failure_of(error) == (code, exit_code)


def test_an_error_is_told_on_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(QueueNotFound("no queue 'x'"), as_json=False) == EXIT_REFUSED
    assert capsys.readouterr() == ("", "tq-admin: no queue 'x'\n")


def test_an_error_is_an_object_if_json_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    tell(QueueNotFound("no queue 'x'"), as_json=True)

    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["error"]["code"] == "queue_not_found"
