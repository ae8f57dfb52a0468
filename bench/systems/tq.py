"""tq: its app and its client.

Its workers are tq-worker with the defaults, the adaptive prefetch among them.
"""

import asyncio
import time
from typing import Any

import uvloop

from bench.systems.client import Answer, AsyncClient
from bench.systems.loads import FRAME_TASKS, FRAMES_IN_FLIGHT, TEXT
from tq import App, DeclaredTask, Handle
from tq.client import QueueAction

app = App()

QUEUE = "bench"


@app.task(queue=QUEUE, result_ttl=0)
async def noop(number: int, text: str) -> None:
    """Do nothing, and keep no result."""


@app.task(queue=QUEUE, result_ttl=0)
def noop_plain(number: int, text: str) -> None:
    """Do nothing, in a thread or a child process, and keep no result."""


@app.task(queue=QUEUE)
async def noop_kept(number: int, text: str) -> int:
    """Do nothing, and return something that is kept for an hour."""
    return number


@app.task(queue=QUEUE)
async def started_at(number: int, text: str) -> float:
    """Return the reading of the machine's monotonic clock, which all its processes share."""
    return time.monotonic()


TASKS: dict[str, DeclaredTask[[int, str], Any, Any]] = {
    "noop": noop,
    "noop_plain": noop_plain,
    "noop_kept": noop_kept,
}


class TqClient(AsyncClient):
    """Enqueues by the async client, or the blocking one where that is asked for."""

    loop_factory = staticmethod(uvloop.new_event_loop)

    def __init__(self, task: str) -> None:
        super().__init__()
        self._task = TASKS[task]

    async def close(self) -> None:
        await app.aclose()

    async def send(self, number: int) -> None:
        await self._task.aenqueue(number, TEXT)

    async def run_bulk(self, tasks: int) -> None:
        starts = iter(range(0, tasks, FRAME_TASKS))

        async def call() -> None:
            for start in starts:
                numbers = range(start, min(start + FRAME_TASKS, tasks))
                await self._task.aenqueue_many([(number, TEXT) for number in numbers])

        await asyncio.gather(*(call() for _ in range(FRAMES_IN_FLIGHT)))

    async def ask(self, number: int) -> float:
        handle: Handle[float] = await started_at.aenqueue(number, TEXT)
        return await handle

    async def done(self) -> int:
        (queue,) = await app.async_client.queues(QUEUE)
        return queue.completed_total

    async def blocking(self, tasks: int) -> Answer:
        """Time one caller of the blocking client."""
        self._task.enqueue(0, TEXT)
        began = time.monotonic()
        for number in range(tasks):
            self._task.enqueue(number, TEXT)
        took = time.monotonic() - began
        self.enqueued += tasks + 1
        return {"seconds": took}

    async def hold(self) -> None:
        """Hand nothing out from now on."""
        await app.async_client.control_queue(QUEUE, QueueAction.PAUSE)

    async def let_go(self) -> None:
        """Hand out again."""
        await app.async_client.control_queue(QUEUE, QueueAction.RESUME)


def client(task: str) -> TqClient:
    """Return the client."""
    return TqClient(task)
