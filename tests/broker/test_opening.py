"""Which store is opened, how, and what is said where it cannot be."""

import asyncio
import sys
from pathlib import Path

import pytest

from tq.broker.config import BrokerSettings
from tq.broker.opening import open_store
from tq.core.errors import ConfigError, StoreLocked
from tq.store.base import Durability
from tq.store.memory import MemoryStore


def test_a_store_on_memory_is_no_file(tmp_path: Path) -> None:
    store = open_store(BrokerSettings(store="memory", data=tmp_path / "data"), "me")

    assert isinstance(store, MemoryStore)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("durability", list(Durability))
def test_a_store_on_disk_is_as_durable_as_asked(durability: Durability, tmp_path: Path) -> None:
    async def opened() -> Durability | None:
        store = open_store(BrokerSettings(data=tmp_path, durability=durability.value), "me")
        try:
            return store.health().durability
        finally:
            store.close()

    assert asyncio.run(opened()) is durability


def test_a_store_is_opened_once(tmp_path: Path) -> None:
    async def twice() -> None:
        store = open_store(BrokerSettings(data=tmp_path), "me")
        try:
            with pytest.raises(StoreLocked):
                open_store(BrokerSettings(data=tmp_path), "me")
        finally:
            store.close()

    asyncio.run(twice())


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "tq.store.rocks", raising=False)
    monkeypatch.setitem(sys.modules, "rocksdict", None)

    with pytest.raises(ConfigError, match=r"pip install 'tq\[broker\]'"):
        open_store(BrokerSettings(data=tmp_path), "me")
