"""Priorities: 0 to 255, higher is more urgent, in three named tiers.

Invariant: the tiers cover 0 to 255 without gap or overlap.
"""

from enum import Enum
from operator import index
from typing import NewType

Priority = NewType("Priority", int)
"""0 (least urgent) to 255 (most urgent)."""

PRIORITY_MIN = Priority(0)
PRIORITY_MAX = Priority(255)
PRIORITY_DEFAULT = Priority(128)


class Tier(Enum):
    """A third of the range of priorities: its lowest, its named and its highest value."""

    LOW = (0, 42, 84)
    NORMAL = (85, 128, 169)
    HIGH = (170, 212, 255)

    @property
    def lowest(self) -> Priority:
        """The least urgent priority of the tier."""
        return Priority(self.value[0])

    @property
    def named(self) -> Priority:
        """The priority that the tier's name stands for."""
        return Priority(self.value[1])

    @property
    def highest(self) -> Priority:
        """The most urgent priority of the tier."""
        return Priority(self.value[2])

    @classmethod
    def of(cls, priority: int) -> "Tier":
        """Return the tier that holds *priority*."""
        return cls.HIGH if priority >= cls.HIGH.lowest else cls.NORMAL if priority >= cls.NORMAL.lowest else cls.LOW


def parse_priority(value: int | str) -> Priority:
    """Return the priority meant by a number 0-255 or by a tier's name in any case.

    Raises:
        ValueError: *value* is neither.
    """
    if isinstance(value, str):
        tier = Tier.__members__.get(value.upper())
        if tier is not None:
            return tier.named
    # A float would pass the comparison, and then be refused by the broker as no task at all.
    elif hasattr(value, "__index__") and not isinstance(value, bool) and PRIORITY_MIN <= value <= PRIORITY_MAX:
        # A plain int: no other whole number, an enumeration's or numpy's, can be sent.
        return Priority(index(value))
    raise ValueError(f"a priority is 0 to 255, or 'low', 'normal' or 'high'; got {value!r}")
