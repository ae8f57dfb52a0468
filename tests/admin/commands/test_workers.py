"""Workers: listed with what ails them."""

import pytest

from tests.admin.commands.shop import Shop
from tq.admin.commands.workers import row, workers
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo, WorkerView


def view(
    *,
    connected: bool = True,
    blocked_by: str | None = None,
    isolating: bool = False,
    stuck: list[str] | None = None,
) -> WorkerView:
    return WorkerView(
        session=b"\x01" * 16,
        info=WorkerInfo("w1", "host", 4_321, "async", 100, ["mail.send"], "1", {"zone": "eu", "gpu": "a100"}),
        queues=["mail", "bills"],
        connected=connected,
        registered_at=Timestamp(0),
        seen_at=Timestamp(1_000),
        held=5,
        started=2,
        blocked_by=blocked_by,
        isolating=isolating,
        stuck=stuck or [],
    )


def test_no_workers_are_an_empty_list(shop: Shop) -> None:
    answer = workers(operator=shop.operator)

    assert answer.document == []


def test_a_worker_is_a_row() -> None:
    assert row(view()) == (
        "w1",
        "host",
        "4321",
        "async",
        100,
        5,
        2,
        "mail, bills",
        "gpu=a100, zone=eu",
        "1970-01-01 00:00:01Z",
        "connected",
    )


@pytest.mark.parametrize(
    "ailing, told",
    [
        (view(connected=False, blocked_by="mail.send", isolating=True), "disconnected"),
        (view(blocked_by="mail.send", isolating=True), "blocked by mail.send"),
        (view(isolating=True, stuck=["mail.send"]), "isolating a suspect"),
        (view(stuck=["mail.send", "bills.make", "mail.send"]), "stuck: bills.make, mail.send x2"),
    ],
)
def test_the_most_pressing_ailment_is_told(ailing: WorkerView, told: str) -> None:
    assert row(ailing)[-1] == told
