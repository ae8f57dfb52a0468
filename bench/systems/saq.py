"""SAQ on Redis."""

from typing import Any

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

    async def ask(self, number: int) -> float:
        return float(await queue.apply("start", timeout=RESULT_S_MAX, number=number, text=TEXT, retries=RETRIES))


def client(task: str) -> SaqClient:
    """Return the client."""
    return SaqClient(task)


def work(_shape: str) -> None:
    """Become a worker, with coroutines and threads."""
    become("saq", "--quiet", "bench.systems.saq.settings")
