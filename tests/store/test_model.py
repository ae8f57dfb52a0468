"""Each store against a plain dict, step by step as hypothesis chooses, reopened on the way."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tq.core.times import DurationMs
from tq.store.base import Commit, Durability, Store
from tq.store.memory import MemoryStore
from tq.store.rocks import RocksStore
from tq.testing.simulated_store import SimulatedStore

# Few and short, so that they meet; all of the bytes that bounds are confused about.
KEYS = st.text("\0\x01a\xfe\xff", min_size=1, max_size=3).map(lambda text: text.encode("latin-1"))
VALUES = st.binary(max_size=40)
BATCHES = st.dictionaries(KEYS, st.none() | VALUES, max_size=6)


class StoreMachine(RuleBasedStateMachine):
    """One store and one dict; a commit is awaited on a loop that lives as long as the machine."""

    # How a store is opened, and opened again, in a directory: a subclass says.
    open_again: Callable[[Path, Store | None], Store]

    batches: Bundle[dict[bytes, bytes | None]] = Bundle("batches")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._store = self._loop.run_until_complete(self._open(None))
        self._model: dict[bytes, bytes] = {}

    async def _open(self, before: Store | None) -> Store:
        return type(self).open_again(Path(self._folder.name) / "data", before)

    async def _commit(self, batch: dict[bytes, bytes | None], *, sync: bool) -> Commit:
        pending: Awaitable[Commit] = self._store.commit(batch, sync=sync)
        for key, value in batch.items():
            assert self._store.get(key) == value
        return await pending

    @rule(target=batches, batch=BATCHES)
    def think_of(self, batch: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
        return batch

    @rule(batch=batches, sync=st.booleans())
    def commit(self, batch: dict[bytes, bytes | None], sync: bool) -> None:
        assert self._loop.run_until_complete(self._commit(batch, sync=sync)) is Commit.COMMITTED
        for key, value in batch.items():
            if value is None:
                self._model.pop(key, None)
            else:
                self._model[key] = value

    @rule(start=KEYS, end=KEYS, limit=st.integers(0, 8), bytes_max=st.integers(0, 100))
    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int) -> None:
        expected: list[tuple[bytes, bytes]] = []
        for key in sorted(self._model):
            if start <= key < end and len(expected) < limit:
                expected.append((key, self._model[key]))
                if sum(len(k) + len(v) for k, v in expected) >= bytes_max:
                    break
        assert self._store.scan(start, end, limit, bytes_max) == expected

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self._store.get(key) == self._model.get(key)

    @rule()
    def reopen(self) -> None:
        self._store = self._loop.run_until_complete(self._open(self._store))

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert self._store.scan(b"", b"\xff\xff\xff\xff", 1_000) == sorted(self._model.items())

    def teardown(self) -> None:
        self._store.close()
        self._loop.close()
        self._folder.cleanup()


def keep_in_memory(directory: Path, before: Store | None) -> Store:
    return before or MemoryStore()


def reopen_on_disk(durability: Durability) -> Callable[[Path, Store | None], Store]:
    def reopen(directory: Path, before: Store | None) -> Store:
        if before is not None:
            before.close()
        return RocksStore(directory, durability=durability, sync_interval_ms=DurationMs(1))

    return reopen


def crash_in_imagination(directory: Path, before: Store | None) -> Store:
    if before is None:
        return SimulatedStore(asyncio.get_running_loop().call_later, sync_s=lambda: 0.0)
    assert isinstance(before, SimulatedStore)
    # A kill of the process: the operating system has all that was written.
    return before.crash(keep=before.unsynced)


@pytest.mark.parametrize(
    "reopen, examples",
    [
        pytest.param(keep_in_memory, 60, id="memory"),
        pytest.param(crash_in_imagination, 60, id="simulated"),
        *(pytest.param(reopen_on_disk(durability), 15, id=f"rocks-{durability.value}") for durability in Durability),
    ],
)
def test_a_store_agrees_with_a_dict(reopen: Callable[[Path, Store | None], Store], examples: int) -> None:
    class Machine(StoreMachine):
        open_again = staticmethod(reopen)

    run_state_machine_as_test(Machine, settings=settings(max_examples=examples, stateful_step_count=25))
