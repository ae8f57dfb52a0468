"""Priorities: 256 of them, in three tiers that leave nothing out."""

from enum import IntEnum

import pytest

from tq.core.priority import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, Tier, parse_priority


def test_the_tiers_cover_every_priority_once() -> None:
    covered = [value for tier in Tier for value in range(tier.lowest, tier.highest + 1)]

    assert covered == list(range(PRIORITY_MIN, PRIORITY_MAX + 1))


@pytest.mark.parametrize("value", range(256))
def test_the_tier_of_a_priority_holds_it(value: int) -> None:
    tier = Tier.of(value)

    assert tier.lowest <= value <= tier.highest


def test_a_tiers_name_stands_for_a_priority_inside_it() -> None:
    assert [Tier.of(tier.named) for tier in Tier] == list(Tier)
    assert Tier.NORMAL.named == PRIORITY_DEFAULT


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 255), ("low", 42), ("Normal", 128), ("HIGH", 212)])
def test_a_priority_is_a_number_or_a_name(value: int | str, expected: int) -> None:
    assert parse_priority(value) == expected


def test_a_number_of_another_kind_becomes_a_plain_one() -> None:
    class Urgency(IntEnum):
        CALM = 7

    assert type(parse_priority(Urgency.CALM)) is int


@pytest.mark.parametrize("value", [-1, 256, "", "urgent", "200", True, 1.5, None])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a priority is 0 to 255, or 'low', 'normal' or 'high'; got"):
        parse_priority(value)  # type: ignore[arg-type]
