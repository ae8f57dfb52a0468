"""Arguments: what a broker could not read is refused before it is sent."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tq.client.arguments import check_readable, checked_ids, deadline_after
from tq.core.errors import InvalidArgument, UsageError
from tq.core.ids import TaskId
from tq.protocol import messages as m

ID = TaskId(bytes(16))


@pytest.mark.parametrize(
    "message",
    [m.Ping(), m.Get([ID]), m.ListTasks("ready", None, 5), m.ControlQueue("q", m.QueueAction.PAUSE), m.ListQueues()],
)
def test_what_a_broker_can_read_passes(message: msgspec.Struct) -> None:
    check_readable(message)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (m.Get(["018f"]), "Get cannot be sent: Expected bytes, got str in ids[0]"),  # type: ignore[list-item]
        (m.ListTasks("ready", None, 2.5), "ListTasks cannot be sent: Expected int, got float in limit"),  # type: ignore[arg-type]
        (m.ListQueues(5), "ListQueues cannot be sent: Expected str | null, got int in name"),  # type: ignore[arg-type]
        (m.ControlQueue("q", "stop"), "ControlQueue cannot be sent: Invalid enum value 'stop' in action"),  # type: ignore[arg-type]
    ],
)
def test_a_field_of_another_type_is_named(message: msgspec.Struct, complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_readable(message)

    assert str(caught.value) == complaint


@pytest.mark.parametrize("given", ["018f4e2c-0000-7000-8000-000000000000", b"short", 7, None])
def test_what_can_be_no_task_id_is_refused_with_where_to_get_one(given: Any) -> None:
    with pytest.raises(UsageError, match=r"a task id is 16 bytes, .*App.handle"):
        checked_ids([ID, given])


@pytest.mark.parametrize(("timeout", "deadline"), [(None, None), (0, 100.0), (-1, 99.0), (2.5, 102.5)])
def test_a_timeout_is_counted_from_now(timeout: float | None, deadline: float | None) -> None:
    assert deadline_after(timeout, 100.0) == deadline


@pytest.mark.parametrize("timeout", ["1", float("nan"), Decimal(1), 10**400, [1]])
def test_what_is_no_number_of_seconds_is_refused(timeout: Any) -> None:
    with pytest.raises(UsageError, match="a timeout is a number of seconds, or None"):
        deadline_after(timeout, 100.0)
