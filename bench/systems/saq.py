"""SAQ on Redis."""

import asyncio
from typing import Any
from uuid import uuid4

import saq

from bench.systems.client import AsyncClient
from bench.systems.loads import CALLERS_MAX, TEXT, count, started_at, url
from bench.systems.worker import become

RESULT_S_MAX = 30.0
# More than the default 10 at a time: the tasks wait for nothing, their round trips to Redis do.
CONCURRENCY = 100
# With the default of one attempt a task is given up, not run again, when its worker dies.
RETRIES = 3
KEEP_NO_RESULT = -1

queue = saq.Queue.from_url(url(), max_concurrent_ops=CALLERS_MAX)


async def noop(context: dict[str, Any], *, number: int, text: str) -> None:
    """Do nothing but count."""
    count()


def noop_plain(context: dict[str, Any], *, number: int, text: str) -> None:
    """Do nothing but count, in a thread."""
    count()


async def start(context: dict[str, Any], *, number: int, text: str) -> float:
    """Return when this runs."""
    return started_at()


settings = {"queue": queue, "functions": [noop, noop_plain, start], "concurrency": CONCURRENCY}


class SaqClient(AsyncClient):
    """Sends by `enqueue`; many at once are coroutines."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self._task = task

    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def send(self, number: int) -> None:
        await queue.enqueue(self._task, number=number, text=TEXT, retries=RETRIES, ttl=KEEP_NO_RESULT)

    async def run_bulk(self, tasks: int) -> None:
        await self.run_callers(CALLERS_MAX, tasks)

    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        # One that listens all the time keeps the subscription of this process open: the others begin
        # to listen at once, before they enqueue, and miss nothing.
        listening = asyncio.create_task(queue.listen(["nobody"], lambda *_: False, timeout=None))
        pairs = await super().run_latency(tasks)
        listening.cancel()
        return pairs

    async def ask(self, number: int) -> float:
        # Not by `apply`, which looks twice a second: Redis tells of the end.
        key = uuid4().hex
        ended = asyncio.create_task(queue.listen([key], has_ended, timeout=RESULT_S_MAX))
        sent = await queue.enqueue("start", key=key, number=number, text=TEXT, retries=RETRIES)
        await ended
        await sent.refresh()
        return float(sent.result)


def has_ended(_key: str, status: saq.Status) -> bool:
    """Tell whether this is what is waited for."""
    return status is saq.Status.COMPLETE


def client(task: str) -> SaqClient:
    """Return the client."""
    return SaqClient(task)


def work(_shape: str) -> None:
    """Become a worker, with coroutines and threads."""
    become("saq", "--quiet", "bench.systems.saq.settings")
