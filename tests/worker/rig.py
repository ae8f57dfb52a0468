"""A worker's parts on a scripted broker, with a clock that a test turns.

Link, dispatcher, executor and pool are the real ones; nobody calls their `tick` but the
test.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

from tests.worker.scripted import ScriptedBroker, registry
from tq.core.worker import WorkerInfo
from tq.protocol.messages import QueueWeight, Subscribe
from tq.worker.dispatcher import Dispatcher
from tq.worker.executor import Executor
from tq.worker.identity import Identity
from tq.worker.link import Link
from tq.worker.pools.aio import AsyncPool
from tq.worker.pools.pool import Pool


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Gate:
    """A handler that runs until the test opens it; ``entered`` counts the calls, ``cancelled`` the cancellations."""

    def __init__(self) -> None:
        self.entered = 0
        self.cancelled = 0
        self.heeds_cancellation = True
        self._open = asyncio.Event()
        self._changed = asyncio.Event()

    async def __call__(self) -> str:
        self.entered += 1
        self._changed.set()
        while True:
            try:
                await self._open.wait()
                return "through"
            except asyncio.CancelledError:
                self.cancelled += 1
                self._changed.set()
                if self.heeds_cancellation:
                    raise

    def open(self) -> None:
        self._open.set()

    async def until(self, condition: Callable[["Gate"], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class Rig:
    """The parts, named; ``connecting`` is the link's run."""

    connecting: asyncio.Task[None]

    def __init__(
        self,
        functions: dict[str, Callable[..., object]],
        *,
        concurrency: int = 2,
        prefetch: int | None = None,
        queues: Sequence[tuple[str, int]] = (("default", 1),),
        pool: Callable[[Executor, int], Pool] = AsyncPool,
    ) -> None:
        self.broker = ScriptedBroker()
        self.clock = Clock()
        bytes_made = count(1)
        self.identity = Identity(lambda size: bytes([next(bytes_made)]) * size)
        self.executor = Executor(registry(**functions), "w")
        self.pool = pool(self.executor, concurrency)
        self.dispatcher = Dispatcher(self.pool, self.executor, concurrency, prefetch, self.clock)
        info = WorkerInfo("w", "h", 1, "async", concurrency, list(functions))
        self.link = Link(
            self.broker,
            self.identity,
            self.dispatcher,
            info,
            Subscribe([QueueWeight(name, weight) for name, weight in queues]),
            clock=self.clock,
            draw=lambda: 1.0 - 2**-53,
        )

    async def turns(self, number: int = 20) -> None:
        """Let the loop turn: enough for bytes to go there and back."""
        for _ in range(number):
            await asyncio.sleep(0)

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and the parts notice."""
        self.clock.advance(seconds)
        self.dispatcher.tick()
        self.link.tick()


@asynccontextmanager
async def running(
    *,
    concurrency: int = 2,
    prefetch: int | None = None,
    queues: Sequence[tuple[str, int]] = (("default", 1),),
    pool: Callable[[Executor, int], Pool] = AsyncPool,
    **functions: Callable[..., object],
) -> AsyncIterator[Rig]:
    """A rig, connected; the keywords are its handlers."""
    rig = Rig(functions, concurrency=concurrency, prefetch=prefetch, queues=queues, pool=pool)
    await rig.dispatcher.start(rig.link)
    rig.connecting = asyncio.create_task(rig.link.run())
    await rig.broker.until(lambda: rig.link.is_open)
    try:
        yield rig
    finally:
        rig.connecting.cancel()
        await asyncio.wait([rig.connecting])
        rig.dispatcher.stop_running()
        await rig.turns()
        await rig.pool.stop()
