"""Leases: the fencing token that says which delivery of a task may settle it.

A token is ``epoch << 40 | counter``.  The epoch is made durable before the broker hands
out anything under it and grows at each start, so a token is never issued twice even if
the last deliveries of the previous run were lost.  Source of the idea: Gray and Cheriton,
"Leases" (SOSP 1989); the fencing of stale holders as in Chubby (Burrows, OSDI 2006).
"""

from collections.abc import Iterable
from typing import NewType

import msgspec

Token = NewType("Token", int)
"""Names one delivery; strictly increasing over the life of the broker's data."""


class DeliveryRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Names a task under a lease: the token of its delivery, and its index there, from 0."""

    token: int
    index: int


def refs_to(places: Iterable[tuple[int, int]]) -> list[DeliveryRef]:
    """Return (token, index) pairs as they travel."""
    return [DeliveryRef(token, index) for token, index in places]


EPOCH_MAX = (1 << 24) - 1
_COUNTER_BITS = 40


def first_token(epoch: int) -> Token:
    """Return the lowest token of *epoch* (1 to 2**24 - 1)."""
    if not 1 <= epoch <= EPOCH_MAX:
        raise ValueError(f"an epoch is 1 to {EPOCH_MAX}; got {epoch}")
    return Token(epoch << _COUNTER_BITS)


def epoch_of(token: Token) -> int:
    """Return the epoch in which *token* was issued."""
    return token >> _COUNTER_BITS
