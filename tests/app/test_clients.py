"""The app's clients: who shares a connection with whom, and when one is closed."""

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from tests.app.wire_worker import WireWorker
from tests.client.scripted import ScriptedBroker
from tq.app.app import App
from tq.app.clients import Clients
from tq.core.errors import ConfigError, UsageError


@pytest.fixture
def app() -> Iterator[App]:
    with App("memory:") as app:
        yield app


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as broker:
        yield broker


def echo(x: int) -> int:
    return x


def test_threads_share_one_client(app: App) -> None:
    clients = []
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        clients.append(app.client)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(clients) == 4
    assert len(set(map(id, clients))) == 1


def test_many_threads_use_it_at_once(app: App) -> None:
    task = app.task(name="echo")(echo)
    results: list[int] = []

    def use(number: int) -> None:
        results.extend(task.enqueue(i).result(timeout=10) for i in range(number, number + 5))

    threads = [threading.Thread(target=use, args=(number,)) for number in (0, 10, 20, 30)]
    with WireWorker(app) as worker:
        for thread in threads:
            thread.start()
        worker.serve(20)
        for thread in threads:
            thread.join()

    assert sorted(results) == [n + i for n in (0, 10, 20, 30) for i in range(5)]


def run_uvloop(main: Coroutine[Any, Any, int]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@pytest.mark.parametrize("run", [asyncio.run, run_uvloop])
def test_each_loop_has_its_own_client_and_takes_it_along(
    app: App, run: Callable[[Coroutine[Any, Any, int]], int]
) -> None:
    async def main() -> int:
        client = app.async_client
        assert client is app.async_client
        await client.ping()
        return id(client)

    clients = app._clients
    with warnings.catch_warnings():
        # A connection that is left open shows as a ResourceWarning when it is collected.
        warnings.simplefilter("error")
        run(main())
        run(main())
        gc.collect()

    assert clients._async == {}
    assert clients._endings == {}


def test_two_loops_at_once_have_two_clients(app: App) -> None:
    seen = []
    together = threading.Barrier(2)

    async def main() -> None:
        await app.async_client.ping()
        seen.append(app.async_client)
        together.wait()

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen[0] is not seen[1]


def test_a_loop_that_was_closed_without_ceremony_is_forgotten() -> None:
    clients = Clients("tq://127.0.0.1:1")

    async def look() -> None:
        clients.of_this_loop()

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(look())
        loop.close()

    assert len(clients._async) == len(clients._endings) == 1


def test_an_app_that_was_closed_connects_again_when_it_is_used(scripted: ScriptedBroker) -> None:
    app = App(scripted.url)

    async def main() -> None:
        async with app:
            await app.async_client.ping()
        assert app._clients._async == {}
        await app.async_client.ping()

    asyncio.run(main())
    app.client.ping()
    app.close()
    app.close()

    assert app.client.ping().server
    app.close()


async def test_one_whose_broker_went_with_it_says_so(app: App) -> None:
    app.client.ping()
    await app.async_client.ping()
    await app.aclose()

    with pytest.raises(UsageError, match="was closed, with all it held"):
        app.client.ping()
    with pytest.raises(UsageError, match="was closed, with all it held"):
        await app.async_client.ping()


@pytest.mark.parametrize(
    "url", ["redis://x", "foo", "", "tq://x:0", "tq://", "file:", "file://host/data", 5, b"tq://x"]
)
def test_a_url_of_no_known_form_is_refused_where_the_app_is_made(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"URL|broker on files"):
        App(url)


def test_an_app_that_looks_for_its_url_in_the_environment_can_be_made_without_a_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQ_URL", "foo")
    app = App()

    with pytest.raises(ConfigError, match="foo"):
        _ = app.client


async def test_the_broker_of_one_that_was_closed_unused_is_gone_too() -> None:
    app = App("memory:")
    app.close()
    app.close()

    with pytest.raises(UsageError, match="was closed, with all it held"):
        app.client.ping()
    with pytest.raises(UsageError, match="was closed, with all it held"):
        await app.async_client.ping()


def test_an_app_that_was_never_used_can_be_closed() -> None:
    async def main() -> None:
        async with App("tq://127.0.0.1:1"):
            pass

    asyncio.run(main())
    App("tq://127.0.0.1:1").close()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def exit_code_of_child(check: Callable[[], bool]) -> int:
    """Fork, call *check* in the child, and return 0 if it returned True there."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            # Reached by an exception only: the child must not go on as a second test run.
            os._exit(2)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_gets_a_client_of_its_own_and_leaves_its_parents_alone() -> None:
    clients = Clients("tq://127.0.0.1:1")

    async def look() -> object:
        return clients.of_this_loop()

    async def main() -> int:
        mine = clients.of_this_loop()
        code = exit_code_of_child(lambda: asyncio.run(look()) is not mine)
        assert clients.of_this_loop() is mine
        return code

    assert asyncio.run(main()) == 0


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_cannot_use_the_broker_inside_its_parent_and_is_told_so(app: App) -> None:
    app.client.ping()

    def check() -> bool:
        with pytest.raises(UsageError, match="start a tq-broker"):
            app.client.ping()
        return True

    assert exit_code_of_child(check) == 0
    assert app.client.ping().server
