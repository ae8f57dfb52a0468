"""Meta: epochs, numbers and the clock, over restarts."""

import pytest

from tests.engine.harness import Rows
from tq.core.errors import StoreTooNew
from tq.core.task import RECORD_FORMAT
from tq.engine.changes import Changes
from tq.engine.meta import Meta, read_floor
from tq.engine.rows import META, ROWS_FORMAT, u64


def restored(rows: Rows) -> tuple[Meta, Changes, int]:
    meta, changes = Meta(), Changes(rows)
    clock = meta.restore(rows, changes)
    return meta, changes, clock


def test_every_start_is_a_new_epoch_that_must_be_durable() -> None:
    rows = Rows()

    for epoch in (1, 2, 3):
        meta, changes, _ = restored(rows)
        rows.apply(changes.writes)
        assert meta.epoch == epoch
        assert changes.promised


def test_a_start_that_never_became_durable_is_the_same_epoch_again() -> None:
    rows = Rows()
    restored(rows)

    meta, _, _ = restored(rows)

    assert meta.epoch == 1


def test_numbers_are_given_out_once_over_restarts() -> None:
    rows = Rows()
    given: list[int] = []

    for _ in range(3):
        meta, changes, _ = restored(rows)
        given += [meta.next_seq(changes), *range(first := meta.next_seq(changes, 5), first + 5)]
        rows.apply(changes.writes)

    assert given == sorted(set(given))


def test_a_block_of_numbers_is_reserved_with_its_first() -> None:
    meta, changes, _ = restored(Rows())
    changes.writes.clear()

    first = meta.next_seq(changes)
    reserved = changes.writes.pop(META + b"seq")
    meta.next_seq(changes, 1_000)

    assert reserved is not None
    assert int.from_bytes(reserved, "big") > first + 1_000
    assert changes.writes == {}


def test_the_clock_is_written_once_a_second() -> None:
    rows = Rows()
    meta, changes, clock = restored(rows)
    assert clock == 0

    for now in (10_000, 10_500, 11_000):
        meta.keep_clock(now, changes)
    rows.apply(changes.writes)

    assert restored(rows)[2] == 11_000


def test_rows_of_a_later_version_are_refused_and_left_alone() -> None:
    rows = Rows({META + b"format": u64(ROWS_FORMAT + 1)})
    meta, changes = Meta(), Changes(rows)

    with pytest.raises(StoreTooNew, match=f"rows of format {ROWS_FORMAT + 1}; this version knows up to {ROWS_FORMAT}"):
        meta.restore(rows, changes)

    assert changes.writes == {}


def test_records_of_a_later_version_are_refused_and_left_alone() -> None:
    rows = Rows({META + b"records": u64(RECORD_FORMAT + 1)})
    meta, changes = Meta(), Changes(rows)

    with pytest.raises(StoreTooNew, match=f"tasks of format {RECORD_FORMAT + 1}; this version knows up to"):
        meta.restore(rows, changes)

    assert changes.writes == {}


def test_a_store_says_which_records_are_in_it() -> None:
    _, changes, _ = restored(Rows())

    assert changes.writes[META + b"records"] == u64(RECORD_FORMAT)


def test_a_floor_that_was_never_written_is_zero() -> None:
    assert read_floor(Rows(), b"due") == 0
