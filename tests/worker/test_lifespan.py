"""Hooks, run: in their order, undone in the opposite one, whatever one of them raises."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.worker.scripted import ScriptedBroker, record
from tq.app.app import App
from tq.app.lifespan import PROVIDED
from tq.core.outcome import Done
from tq.protocol.messages import Settle, Window
from tq.worker.keeper import LoopKeeper
from tq.worker.lifespan import HookFailed, Lifespan
from tq.worker.worker import Worker


class Database:
    """What a hook opens."""

    rows = 7


class Cache:
    """What another makes of it."""

    def __init__(self, database: Database) -> None:
        self.database = database


class Witness:
    """An app whose hooks say that they run."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.app = App("tq://127.0.0.1:1")
        say = self.said.append

        @self.app.on_worker_start
        async def database() -> AsyncIterator[Database]:
            say("open database")
            yield Database()
            say("close database")

        @self.app.on_worker_start
        def cache(*, database: Database = PROVIDED) -> Iterator[Cache]:
            say("open cache")
            yield Cache(database)
            say("close cache")

        @self.app.on_worker_start
        async def greet() -> None:
            say("greet")

        @self.app.on_worker_stop
        async def part(*, cache: Cache = PROVIDED) -> None:
            say(f"part from {cache.database.rows}")

        @self.app.on_worker_stop
        def wave() -> None:
            say("wave")


OPENED = ["open database", "open cache", "greet"]
CLOSED = ["wave", "part from 7", "close cache", "close database"]


async def test_hooks_run_in_order_and_are_undone_in_the_opposite_one() -> None:
    witness = Witness()
    witness.app.registry.check()
    lifespan = Lifespan(witness.app.registry.hooks)

    await lifespan.start()
    provided = dict(lifespan.provided)
    await lifespan.stop()
    await lifespan.stop()

    assert witness.said == [*OPENED, *CLOSED]
    assert set(provided) == {Database, Cache}
    assert provided[Cache].database is provided[Database]


async def test_a_hook_that_raises_at_the_start_undoes_those_before_it() -> None:
    witness = Witness()

    @witness.app.on_worker_start
    def fail() -> None:
        raise OSError("no route to it")

    with pytest.raises(HookFailed, match=r"fail raised: OSError: no route to it") as caught:
        await Lifespan(witness.app.registry.hooks).start()

    assert isinstance(caught.value.__cause__, OSError)
    assert witness.said == [*OPENED, "close cache", "close database"]


async def test_a_hook_that_raises_at_the_stop_keeps_no_other_from_running(caplog: pytest.LogCaptureFixture) -> None:
    witness = Witness()

    @witness.app.on_worker_stop
    def fail() -> None:
        raise OSError("it is gone")

    lifespan = Lifespan(witness.app.registry.hooks)
    await lifespan.start()
    with caplog.at_level(logging.ERROR):
        await lifespan.stop()

    assert witness.said == [*OPENED, *CLOSED]
    assert "fail raised when the worker stopped" in caplog.text
    assert "it is gone" in caplog.text


@pytest.mark.parametrize("yields", [0, 2])
async def test_a_hook_yields_once(yields: int, caplog: pytest.LogCaptureFixture) -> None:
    app = App("tq://127.0.0.1:1")

    @app.on_worker_start
    def odd() -> Iterator[Database]:
        for _ in range(yields):
            yield Database()

    lifespan = Lifespan(app.registry.hooks)
    if yields == 0:
        with pytest.raises(HookFailed, match="it did not yield"):
            await lifespan.start()
    else:
        await lifespan.start()
        await lifespan.stop()
        assert "it yielded a second time" in caplog.text


@pytest.mark.parametrize("pool", ["async", "thread"])
async def test_a_worker_gives_handlers_what_its_hooks_provide(pool: str) -> None:
    witness, broker = Witness(), ScriptedBroker()

    @witness.app.task(name="count")
    async def count(factor: int, *, database: Database = PROVIDED, cache: Cache = PROVIDED) -> int:
        assert cache.database is database
        witness.said.append("count")
        return factor * database.rows

    worker = Worker(
        witness.app.registry,
        broker,
        queues=[("default", 1)],
        pool=pool,
        concurrency=1,
        burst=True,
        name="w",
        draw=lambda: 0.9,
        keeper=LoopKeeper(broker, lambda: 0.9),
    )
    run = asyncio.create_task(worker.run())
    await broker.next(Window)
    broker.deliver(5, record("count", 6))
    await broker.next(Settle)
    worker.request_stop()
    await run

    assert broker.of(Settle)[0].done == [Done(5, 0, b"\x2a")]
    assert witness.said == [*OPENED, "count", *CLOSED]
