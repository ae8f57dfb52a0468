"""The store in memory passes the suite; it never has a commit in flight and keeps no files."""

import asyncio
from pathlib import Path

import pytest

from tq.core.errors import StoreError
from tq.store.memory import MemoryStore
from tq.testing.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    def open_store(self, directory: Path) -> MemoryStore:
        return MemoryStore()


def test_it_starts_from_given_rows_and_leaves_them_alone() -> None:
    rows = {b"b": b"2", b"a": b"1"}
    store = MemoryStore(rows)

    store.commit({b"a": None})

    assert store.scan(b"", b"\xff", 10) == [(b"b", b"2")]
    assert rows == {b"b": b"2", b"a": b"1"}


def test_a_commit_is_complete_when_it_returns() -> None:
    async def main() -> None:
        store = MemoryStore()
        pending = store.commit({b"a": b"1"})
        store.commit({b"a": b"2"})
        await pending
        assert store.get(b"a") == b"2"

    asyncio.run(main())


def test_a_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in memory"):
        MemoryStore().snapshot(tmp_path)
