"""Durations and sizes: what people write, and what is made of it."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from

from tq.core.quantities import BYTES, MILLISECONDS, PLAIN, Unit, parse_quantity, spell_quantity, unit_of


@pytest.mark.parametrize(
    "name, unit",
    [
        ("lease_ms", MILLISECONDS),
        ("disk_reserve_bytes", BYTES),
        ("payload_bytes_max", BYTES),
        ("queues_max", PLAIN),
        ("max_memory_per_child", BYTES),
        ("max_tasks_per_child", PLAIN),
        ("concurrency", PLAIN),
    ],
)
def test_a_name_ends_in_its_unit(name: str, unit: Unit) -> None:
    assert unit_of(name) == unit


@pytest.mark.parametrize(
    "text, unit, value",
    [
        ("250", MILLISECONDS, 250),
        ("250ms", MILLISECONDS, 250),
        ("10s", MILLISECONDS, 10_000),
        (" 5 m ", MILLISECONDS, 300_000),
        ("1H", MILLISECONDS, 3_600_000),
        ("30d", MILLISECONDS, 2_592_000_000),
        ("262_144", BYTES, 262_144),
        ("256kib", BYTES, 262_144),
        ("2GiB", BYTES, 2_147_483_648),
        ("100_000", PLAIN, 100_000),
    ],
)
def test_a_quantity_is_a_number_and_perhaps_a_suffix(text: str, unit: Unit, value: int) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    "text, unit",
    [
        ("", MILLISECONDS),
        ("s", MILLISECONDS),
        ("-1", MILLISECONDS),
        ("1.5s", MILLISECONDS),
        ("10KiB", MILLISECONDS),
        ("10s", BYTES),
        ("10s", PLAIN),
        ("1s 2", MILLISECONDS),
    ],
)
def test_anything_else_is_refused(text: str, unit: Unit) -> None:
    with pytest.raises(ValueError, match="not a number"):
        parse_quantity(text, unit)


@given(integers(min_value=0, max_value=2**62), sampled_from([MILLISECONDS, BYTES, PLAIN]))
def test_what_is_spelled_is_read_back(value: int, unit: Unit) -> None:
    assert parse_quantity(spell_quantity(value, unit), unit) == value


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (10_000, MILLISECONDS, "10s"),
        (90_000, MILLISECONDS, "90s"),
        (2_592_000_000, MILLISECONDS, "30d"),
        (0, MILLISECONDS, "0"),
        (1_048_576, BYTES, "1MiB"),
        (1_000, BYTES, "1000B"),
        (1_000, PLAIN, "1000"),
    ],
)
def test_a_quantity_is_spelled_with_the_largest_whole_suffix(value: int, unit: Unit, text: str) -> None:
    assert spell_quantity(value, unit) == text
