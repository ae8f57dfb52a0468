"""The program that enqueues, in the system's own environment: it is told what to do line by line, and times it.

    {"do": "callers", "tasks": 300, "callers": 1}   ->   {"seconds": 0.21}

An adapter says how one task is sent, how many are sent at once, and how a result is waited
for; `AsyncClient` and `BlockingClient` make callers of that, coroutines or threads.

Invariant: what is made once, as a connection, is made before a clock starts.
"""

import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bench.systems.loads import counted

_POLL_S = 0.01
_UNTIL_S_MAX = 120.0
_LATENCY_EVERY_S = 0.01
_LATENCY_WARM_UP = 20
_CALLERS_WARM_UP = 100

Answer = dict[str, Any]


class Client(ABC):
    """What the scenarios ask of a system's client; the tasks it has enqueued are counted in `enqueued`."""

    loop_factory: Callable[[], asyncio.AbstractEventLoop] = staticmethod(asyncio.new_event_loop)

    def __init__(self) -> None:
        self.enqueued = 0

    async def open(self) -> None:  # noqa: B027 - most libraries connect at first use
        """Connect, where the library does not by itself."""

    async def close(self) -> None:  # noqa: B027 - and need no farewell
        """Let go of what `open` made."""

    @abstractmethod
    async def run_callers(self, callers: int, tasks: int) -> None:
        """Send *tasks* by so many callers, each the next one when its last is acknowledged."""

    @abstractmethod
    async def run_bulk(self, tasks: int) -> None:
        """Send *tasks* as fast as the library can from one process."""

    @abstractmethod
    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        """Send *tasks* evenly and return, of each, the seconds to the handler's start and to its result here."""

    async def done(self) -> int:
        """Return how many tasks have been done."""
        return counted()

    # ------------------------------------------------------------------------------------------------ what is asked

    async def callers(self, callers: int, tasks: int) -> Answer:
        """Time `run_callers`."""
        # Each caller's connection, for one, is not what is measured.
        await self._sent(_CALLERS_WARM_UP, self.run_callers(callers, _CALLERS_WARM_UP))
        return {"seconds": await self._sent(tasks, self.run_callers(callers, tasks))}

    async def warm_up(self, tasks: int) -> Answer:
        """Have a few tasks enqueued and done, in both ways: by then the connections of either are there."""
        await self._sent(tasks, self.run_callers(1, tasks))
        await self._sent(tasks, self.run_bulk(tasks))
        return await self.until_done()

    async def bulk(self, tasks: int) -> Answer:
        """Time `run_bulk`."""
        return {"seconds": await self._sent(tasks, self.run_bulk(tasks))}

    async def until_done(self) -> Answer:
        """Wait until all that was enqueued is done; asking costs a server next to nothing."""
        began = time.monotonic()
        async with asyncio.timeout(_UNTIL_S_MAX):
            while await self.done() < self.enqueued:  # noqa: ASYNC110 - what is asked for is in another process
                await asyncio.sleep(_POLL_S)
        return {"seconds": time.monotonic() - began}

    async def both(self, tasks: int) -> Answer:
        """Time `run_bulk` and the end of its last task."""
        return {"seconds": (await self.bulk(tasks))["seconds"] + (await self.until_done())["seconds"]}

    async def latency(self, tasks: int) -> Answer:
        """Return milliseconds to the starts and to the results, without those of the first few tasks."""
        pairs = (await self.run_latency(tasks + _LATENCY_WARM_UP))[_LATENCY_WARM_UP:]
        self.enqueued += tasks + _LATENCY_WARM_UP
        return {"starts": [start * 1_000 for start, _ in pairs], "results": [result * 1_000 for _, result in pairs]}

    async def _sent(self, tasks: int, sending: Awaitable[None]) -> float:
        began = time.monotonic()
        await sending
        took = time.monotonic() - began
        self.enqueued += tasks
        return took


class AsyncClient(Client):
    """A client whose library is for coroutines."""

    @abstractmethod
    async def send(self, number: int) -> None:
        """Enqueue one task and return when the server has acknowledged it."""

    @abstractmethod
    async def ask(self, number: int) -> float:
        """Enqueue a task, wait for its result and return that: when its handler started."""

    async def run_callers(self, callers: int, tasks: int) -> None:
        """Send by coroutines."""
        numbers = iter(range(tasks))

        async def call() -> None:
            for number in numbers:
                await self.send(number)

        await asyncio.gather(*(call() for _ in range(callers)))

    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        """Ask by a coroutine each."""

        async def call(number: int) -> tuple[float, float]:
            sent_at = time.monotonic()
            started_at = await self.ask(number)
            return started_at - sent_at, time.monotonic() - sent_at

        async with asyncio.TaskGroup() as group:
            calls = []
            for number in range(tasks):
                calls.append(group.create_task(call(number)))
                await asyncio.sleep(_LATENCY_EVERY_S)
        return [call.result() for call in calls]


class BlockingClient(Client):
    """A client whose library is for threads; ``latency_threads`` may wait for results at a time."""

    latency_threads = 8

    @abstractmethod
    def send(self, number: int) -> None:
        """Enqueue one task and return when the server has acknowledged it."""

    @abstractmethod
    def ask(self, number: int) -> float:
        """Enqueue a task, wait for its result and return that: when its handler started."""

    async def run_callers(self, callers: int, tasks: int) -> None:
        """Send by threads; one caller is the thread that asks."""
        if callers == 1:
            for number in range(tasks):
                self.send(number)
            return
        share = [range(first, tasks, callers) for first in range(callers)]

        def call(numbers: range) -> None:
            for number in numbers:
                self.send(number)

        with ThreadPoolExecutor(callers) as threads:
            list(threads.map(call, share))

    async def run_bulk(self, tasks: int) -> None:
        """Send in a loop: the library has nothing for many tasks at once."""
        for number in range(tasks):
            self.send(number)

    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        """Ask by a thread each."""

        def call(number: int) -> tuple[float, float]:
            sent_at = time.monotonic()
            started_at = self.ask(number)
            return started_at - sent_at, time.monotonic() - sent_at

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(self.latency_threads) as threads:
            calls = []
            for number in range(tasks):
                calls.append(loop.run_in_executor(threads, partial(call, number)))
                await asyncio.sleep(_LATENCY_EVERY_S)
            return await asyncio.gather(*calls)


def serve(client: Client) -> None:
    """Do what standard input says, line by line, until it ends."""
    with asyncio.Runner(loop_factory=client.loop_factory) as runner:
        runner.run(_serve(client))


async def _serve(client: Client) -> None:
    loop = asyncio.get_running_loop()
    await client.open()
    print(json.dumps({}), flush=True)
    # The next line is waited for beside the loop, on which connections want to be kept alive.
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = json.loads(line)
        answer = await getattr(client, words.pop("do"))(**words)
        print(json.dumps(answer or {}), flush=True)
    await client.close()
