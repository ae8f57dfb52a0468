"""What every store must do, as tests: a store is one that passes this.

    class TestMyStore(StoreSuite):
        def open_store(self, directory: Path) -> Store:
            return MyStore(directory)

The tests ask nothing of the runner but pytest's `tmp_path`. What a store does after a
crash depends on what it is made of and is tested where it is.
"""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

from tq.core.errors import StoreError
from tq.store.base import Commit, Store

Writes = Mapping[bytes, bytes | None]

# Keys that are easily confused: prefixes of each other, neighbours, the first and the last byte.
KEYS = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\x01",
    b"aa",
    b"a\xfe",
    b"a\xff",
    b"a\xff\xff",
    b"b",
    b"b\0",
    b"\0",
    b"\xff",
]


def commit_all(store: Store, *batches: Writes) -> None:
    """Commit *batches* one after another, on a loop of their own."""

    async def main() -> None:
        for batch in batches:
            assert await store.commit(batch) is Commit.COMMITTED

    asyncio.run(main())


class StoreSuite:
    """Subclass it, and return a new store from `open_store`."""

    def open_store(self, directory: Path) -> Store:
        """Return an empty store, which may keep its files in *directory*."""
        raise NotImplementedError

    def test_a_row_that_was_never_written_is_none(self, tmp_path: Path) -> None:
        """`get` answers None, `scan` nothing."""
        store = self.open_store(tmp_path)

        assert store.get(b"a") is None
        assert store.scan(b"", b"\xff", 10) == []
        store.close()

    def test_a_row_reads_back_and_can_be_overwritten_and_deleted(self, tmp_path: Path) -> None:
        """The last write wins; an empty value is a value."""
        store = self.open_store(tmp_path)

        commit_all(store, {b"a": b"1", b"b": b"1", b"c": b""}, {b"a": b"2", b"b": None})

        assert [store.get(key) for key in (b"a", b"b", b"c")] == [b"2", None, b""]
        assert store.scan(b"", b"\xff", 10) == [(b"a", b"2"), (b"c", b"")]
        store.close()

    def test_deleting_what_is_not_there_is_no_error(self, tmp_path: Path) -> None:
        """Nor does it leave anything."""
        store = self.open_store(tmp_path)

        commit_all(store, {b"a": None}, {b"b": b"1"}, {b"b": None}, {b"b": None})

        assert store.scan(b"", b"\xff", 10) == []
        store.close()

    def test_a_scan_starts_at_its_start_and_ends_before_its_end(self, tmp_path: Path) -> None:
        """Every pair of confusing keys as bounds, against a plain sort."""
        store = self.open_store(tmp_path)
        rows = {key: b"v" + key for key in KEYS}
        commit_all(store, rows)

        for start in [b"", *KEYS]:
            for end in [b"", *KEYS, b"\xff\xff"]:
                expected = [(key, rows[key]) for key in sorted(rows) if start <= key < end]
                assert store.scan(start, end, len(KEYS)) == expected, (start, end)
        store.close()

    def test_bounds_need_not_be_rows(self, tmp_path: Path) -> None:
        """Before the first, between two, after the last."""
        store = self.open_store(tmp_path)
        commit_all(store, {b"d": b"1", b"f": b"2"})

        assert store.scan(b"a", b"c", 10) == []
        assert store.scan(b"a", b"e", 10) == [(b"d", b"1")]
        assert store.scan(b"e", b"e\xff", 10) == []
        assert store.scan(b"e", b"z", 10) == [(b"f", b"2")]
        assert store.scan(b"g", b"z", 10) == []
        store.close()

    def test_a_range_that_ends_before_it_starts_is_empty(self, tmp_path: Path) -> None:
        """So is one that ends where it starts."""
        store = self.open_store(tmp_path)
        commit_all(store, {b"a": b"1", b"b": b"2", b"c": b"3"})

        assert store.scan(b"b", b"b", 10) == []
        assert store.scan(b"c", b"a", 10) == []
        store.close()

    def test_a_scan_returns_the_first_rows_up_to_its_limit(self, tmp_path: Path) -> None:
        """A limit of nothing is nothing."""
        store = self.open_store(tmp_path)
        commit_all(store, {bytes([n]): b"v" for n in range(100)})

        for limit in (0, 1, 2, 99, 100, 101):
            found = store.scan(b"", b"\xff", limit)
            assert [key for key, _ in found] == [bytes([n]) for n in range(min(limit, 100))]
        store.close()

    def test_a_scan_stops_after_the_row_that_fills_its_bytes(self, tmp_path: Path) -> None:
        """Ten bytes a row, key included; always one row at least."""
        store = self.open_store(tmp_path)
        commit_all(store, {bytes([n]): b"123456789" for n in range(10)})

        for bytes_max, rows in ((0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (95, 10), (1_000, 10)):
            assert len(store.scan(b"", b"\xff", 100, bytes_max)) == rows, bytes_max
        store.close()

    def test_a_scan_is_bounded_though_nobody_says_so(self, tmp_path: Path) -> None:
        """A megabyte by default: four rows of 300,000 bytes."""
        store = self.open_store(tmp_path)
        commit_all(store, {bytes([n]): bytes(300_000) for n in range(10)})

        assert len(store.scan(b"", b"\xff", 100)) == 4
        store.close()

    def test_a_commit_is_visible_before_it_is_awaited(self, tmp_path: Path) -> None:
        """To `get` and to `scan`, deletions too."""
        store = self.open_store(tmp_path)

        async def main() -> None:
            await store.commit({b"a": b"1", b"b": b"1"})
            pending = store.commit({b"a": b"2", b"b": None, b"c": b"3"})
            assert [store.get(key) for key in (b"a", b"b", b"c")] == [b"2", None, b"3"]
            assert store.scan(b"", b"\xff", 10) == [(b"a", b"2"), (b"c", b"3")]
            assert await pending is Commit.COMMITTED

        asyncio.run(main())
        store.close()

    def test_an_unsynced_commit_is_complete_at_once_and_keeps_its_place(self, tmp_path: Path) -> None:
        """Synced and unsynced batches write the same row in turn; the later one wins."""
        store = self.open_store(tmp_path)

        async def main() -> None:
            for number in range(20):
                pending = store.commit({b"a": b"%d" % number}, sync=number % 3 == 0)
                assert store.get(b"a") == b"%d" % number
                if number % 3 == 0:
                    await pending

        asyncio.run(main())

        assert store.get(b"a") == b"19"
        store.close()

    def test_an_unsynced_commit_may_be_awaited(self, tmp_path: Path) -> None:
        """It ends as a synced one does."""
        store = self.open_store(tmp_path)

        async def main() -> None:
            assert await store.commit({b"a": b"1"}, sync=False) is Commit.COMMITTED

        asyncio.run(main())
        store.close()

    def test_an_empty_commit_is_a_barrier(self, tmp_path: Path) -> None:
        """It ends like any other and changes nothing."""
        store = self.open_store(tmp_path)

        commit_all(store, {b"a": b"1"}, {}, {})

        assert store.scan(b"", b"\xff", 10) == [(b"a", b"1")]
        store.close()

    def test_what_a_scan_returned_does_not_change(self, tmp_path: Path) -> None:
        """It is a copy: no iterator outlives the call."""
        store = self.open_store(tmp_path)
        commit_all(store, {b"a": b"1", b"b": b"1"})

        before = store.scan(b"", b"\xff", 10)
        commit_all(store, {b"a": b"2", b"b": None})

        assert before == [(b"a", b"1"), (b"b", b"1")]
        store.close()

    def test_many_random_batches_agree_with_a_plain_dict(self, tmp_path: Path) -> None:
        """Puts and deletes over few keys; every range is compared after every batch."""
        store = self.open_store(tmp_path)
        chance = random.Random(7)  # noqa: S311 - a reproducible draw, not a secret
        model: dict[bytes, bytes] = {}

        for number in range(60):
            batch = {key: chance.choice([None, b"%d" % number]) for key in chance.sample(KEYS, 5)}
            commit_all(store, batch)
            for key, value in batch.items():
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value

            start, end = chance.choice(KEYS), chance.choice(KEYS)
            expected = [(key, model[key]) for key in sorted(model) if start <= key < end]
            assert store.scan(start, end, 100) == expected
            assert [store.get(key) for key in KEYS] == [model.get(key) for key in KEYS]
        store.close()

    def test_health_says_that_a_new_store_works(self, tmp_path: Path) -> None:
        """Its name, no failure, room on the disk where there is one."""
        store = self.open_store(tmp_path)

        health = store.health()

        assert health.kind
        assert health.failure is None
        assert not health.is_write_stopped
        assert health.disk_free_bytes is None or health.disk_free_bytes > 0
        store.close()

    def test_reclaiming_changes_no_row(self, tmp_path: Path) -> None:
        """Whatever the range; and a closed store takes the call too."""
        store = self.open_store(tmp_path)
        commit_all(store, {b"a": b"1", b"b": b"2", b"c": b"3"}, {b"b": None})

        for start, end in ((b"a", b"c"), (b"", b"\xff"), (b"x", b"y"), (b"c", b"a")):
            store.reclaim(start, end)

        assert store.scan(b"", b"\xff", 10) == [(b"a", b"1"), (b"c", b"3")]
        store.close()
        store.reclaim(b"a", b"c")

    def test_a_closed_store_refuses_and_may_be_closed_again(self, tmp_path: Path) -> None:
        """With a store error, not with the library's."""
        store = self.open_store(tmp_path)
        commit_all(store, {b"a": b"1"})

        store.close()
        store.close()

        for use in (
            lambda: store.get(b"a"),
            lambda: store.scan(b"", b"z", 1),
            lambda: store.commit({b"a": b"2"}, sync=False),
        ):
            try:
                use()
            except StoreError:
                continue
            raise AssertionError("a closed store answered")
