"""Descriptors: shared out so that the store never lacks one."""

import resource

import pytest

from tq.bin.descriptors import Descriptors, shares


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (resource.RLIM_INFINITY, Descriptors(512, 10_000)),
        (1_048_576, Descriptors(512, 10_000)),
        (4_096, Descriptors(512, 3_552)),
        (1_024, Descriptors(256, 736)),
        (100, Descriptors(25, 43)),
        (30, Descriptors(7, 1)),
    ],
)
def test_connections_get_what_the_store_does_not_need(limit: int, expected: Descriptors) -> None:
    assert shares(limit, 10_000) == expected
