"""Tasks as classes: set up once, before the first run."""

import asyncio
import os
import threading
from typing import Any

import pytest

from tq.app.handler import TaskHandler, function_of
from tq.app.registry import Handler
from tq.core.errors import UsageError
from tq.core.task import TaskSpec


class Stateless(TaskHandler):
    def run(self, x: int) -> int:
        return x + 1


class Sync(TaskHandler):
    def __init__(self) -> None:
        self.prepared: list[int] = []

    def setup(self) -> None:
        self.prepared.append(os.getpid())

    def run(self, x: int) -> int:
        return x + len(self.prepared)


class Async(TaskHandler):
    def __init__(self) -> None:
        self.prepared = 0

    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.prepared += 1

    async def run(self, x: int) -> int:
        return x + self.prepared


class Flaky(TaskHandler):
    def __init__(self) -> None:
        self.tries = 0

    def setup(self) -> None:
        self.tries += 1
        if self.tries == 1:
            raise ConnectionError("not yet")

    async def run(self) -> int:
        return self.tries


def test_a_handler_without_a_setup_just_runs() -> None:
    assert function_of(Stateless())(1) == 2


def test_the_setup_runs_once_before_the_first_run() -> None:
    handler = Sync()
    function = function_of(handler)

    results = [function(1), function(2)]

    assert results == [2, 3]
    assert handler.prepared == [os.getpid()]


def test_threads_that_start_together_share_one_setup() -> None:
    handler = Sync()
    function = function_of(handler)
    together = threading.Barrier(4)

    def call() -> None:
        together.wait()
        function(1)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(handler.prepared) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_set_up_anew() -> None:
    function = function_of(Sync())
    function(1)

    child = os.fork()
    if child == 0:
        os._exit(function(0))
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 2


def test_concurrent_first_runs_share_one_setup_in_each_loop() -> None:
    handler = Async()
    function = function_of(handler)

    async def main() -> list[int]:
        return list(await asyncio.gather(*(function(0) for _ in range(3))))

    assert asyncio.run(main()) == [1, 1, 1]
    assert asyncio.run(main()) == [2, 2, 2]


def test_a_setup_that_fails_is_tried_again_by_the_next_attempt() -> None:
    function = function_of(Flaky())

    async def main() -> list[Any]:
        return list(await asyncio.gather(function(), function(), return_exceptions=True))

    first, second = asyncio.run(main())

    assert isinstance(first, ConnectionError)
    assert second == 2


@pytest.mark.parametrize("kind, is_async", [(Stateless, False), (Sync, False), (Async, True), (Flaky, True)])
def test_it_is_a_handler_like_a_function(kind: Any, is_async: bool) -> None:
    handler = Handler(function_of(kind()), TaskSpec("x"))

    assert handler.is_async is is_async


def test_the_arguments_of_run_are_checked() -> None:
    calls = Handler(function_of(Async()), TaskSpec("x")).calls("msgpack")

    assert calls.decode(calls.encode((1,), {})) == ((1,), {})


def test_an_asynchronous_setup_needs_an_asynchronous_run() -> None:
    class Mixed(TaskHandler):
        async def setup(self) -> None: ...
        def run(self) -> None: ...

    with pytest.raises(UsageError, match=r"Mixed\.setup is async def"):
        function_of(Mixed())


def test_a_handler_must_have_a_run() -> None:
    class Empty(TaskHandler): ...

    with pytest.raises(UsageError, match="Empty has no method run"):
        function_of(Empty())
