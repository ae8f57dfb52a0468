"""The broker as a whole: pinged and counted."""

import pytest

from tests.admin.commands.shop import Shop, fields
from tq.admin.answer import Facts
from tq.admin.commands.broker import ping, sized, stats


def test_a_ping_is_answered_with_the_broker_and_its_clock(shop: Shop) -> None:
    answer = ping(operator=shop.operator)

    assert list(fields(answer)) == ["server", "clock_at", "round_trip_ms"]
    assert str(answer.blocks[0]).startswith("tq-broker embedded answered in ")


def test_stats_are_counts_totals_and_resources(shop: Shop) -> None:
    shop.enqueue(3)

    answer = stats(operator=shop.operator)

    about, counts, totals = answer.blocks
    assert isinstance(about, Facts)
    assert ("store", "memory") in about.rows
    assert isinstance(counts, Facts)
    assert ("ready", 3) in counts.rows
    assert isinstance(totals, Facts)
    assert ("enqueued in all", 3) in totals.rows
    assert fields(answer)["ready"] == 3
    assert str(fields(answer)["started_at"]).endswith("Z")


def test_what_was_not_measured_is_not_told(shop: Shop) -> None:
    about, _, totals = stats(operator=shop.operator).blocks

    assert isinstance(about, Facts)
    assert ("disk free", None) in about.rows
    assert isinstance(totals, Facts)
    assert {("commits", None), ("mean commit", None)} <= set(totals.rows)


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_536, "1.5 KiB"),
        (5 * 1_024**3, "5.0 GiB"),
        (5_000 * 1_024**4, "5000.0 TiB"),
    ],
)
def test_a_size_is_told_in_its_unit(size: int, text: str) -> None:
    assert sized(size) == text
