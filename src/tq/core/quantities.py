"""Durations and sizes as people write them: 10s, 256KiB.

Invariant: `parse_quantity(spell_quantity(n, unit), unit) == n`.  A bare number counts
the unit that the setting's name ends in.
"""

import re
from typing import NamedTuple


class Unit(NamedTuple):
    """What a number counts, and how many of it each suffix stands for, smallest first."""

    name: str
    suffixes: dict[str, int]
    example: str


MILLISECONDS = Unit("ms", {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}, "10s, 5m, 30d")
BYTES = Unit("bytes", {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}, "64KiB, 2GiB")
PLAIN = Unit("", {}, "100")

_QUANTITY = re.compile(r"(\d[\d_]*)\s*([A-Za-z]*)\Z")


def unit_of(name: str) -> Unit:
    """Return what the setting *name* counts, by its last word; a last ``max`` or ``per_child`` is passed over."""
    match name.removesuffix("_max").removesuffix("_per_child").rpartition("_")[2]:
        case "ms":
            return MILLISECONDS
        case "bytes" | "memory":
            return BYTES
        case _:
            return PLAIN


def parse_quantity(text: str, unit: Unit) -> int:
    """Return the number written in *text*, in *unit*: digits, underscores among them, a suffix in any case.

    Raises:
        ValueError: *text* is not such a number, or *unit* has no such suffix.
    """
    found = _QUANTITY.match(text.strip())
    factors = {suffix.lower(): factor for suffix, factor in unit.suffixes.items()} | {"": 1}
    if found is None or found[2].lower() not in factors:
        raise ValueError(f"not a number of {unit.name}: {text!r}" if unit.name else f"not a number: {text!r}")
    return int(found[1].replace("_", "")) * factors[found[2].lower()]


def spell_quantity(value: int, unit: Unit) -> str:
    """Return *value* with the largest suffix that keeps it whole."""
    fitting = [(suffix, factor) for suffix, factor in unit.suffixes.items() if value and value % factor == 0]
    if not fitting:
        return str(value)
    suffix, factor = fitting[-1]
    return f"{value // factor}{suffix}"
