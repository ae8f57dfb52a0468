"""taskiq on Redis streams, by taskiq-redis."""

import os

import uvloop
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from bench.systems.client import AsyncClient
from bench.systems.loads import (
    CALLERS_MAX,
    PROCESSES,
    RESULTS_VARIABLE,
    TEXT,
    THREADS,
    count,
    started_at,
    url,
)
from bench.systems.worker import become

RESULT_S_MAX = 30.0
# It has no push: how often the caller looks. Its default is 0.2 s.
CHECK_S = 0.002
PREFETCH = 100

# A stream, of its three ways over Redis, is the one that acknowledges. What was sent before a worker came counts.
broker = RedisStreamBroker(url(), consumer_id="0")
# A backend keeps every task's result; so it is there only where results are asked for.
if RESULTS_VARIABLE in os.environ:
    broker = broker.with_result_backend(RedisAsyncResultBackend(url(), result_ex_time=3_600))


@broker.task
async def noop(number: int, text: str) -> None:
    """Do nothing but count."""
    count()


@broker.task
def noop_plain(number: int, text: str) -> None:
    """Do nothing but count, in a thread or a child process."""
    count()


@broker.task
async def start(number: int, text: str) -> float:
    """Return when this runs."""
    return started_at()


class TaskiqClient(AsyncClient):
    """Sends by `kiq`; many at once are coroutines."""

    # As its worker.
    loop_factory = staticmethod(uvloop.new_event_loop)

    def __init__(self, task: str) -> None:
        super().__init__()
        self._task = {"noop": noop, "noop_plain": noop_plain}[task]

    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def send(self, number: int) -> None:
        await self._task.kiq(number, TEXT)

    async def run_bulk(self, tasks: int) -> None:
        await self.run_callers(CALLERS_MAX, tasks)

    async def ask(self, number: int) -> float:
        sent = await start.kiq(number, TEXT)
        return float((await sent.wait_result(check_interval=CHECK_S, timeout=RESULT_S_MAX)).return_value)


POOLS = {
    "one": ("--workers", "1"),
    "two": ("--workers", str(PROCESSES)),
    "threads": ("--workers", "1", "--max-threadpool-threads", str(THREADS)),
    "processes": ("--workers", "1", "--use-process-pool", "--max-process-pool-processes", str(PROCESSES)),
}


def client(task: str) -> TaskiqClient:
    """Return the client."""
    return TaskiqClient(task)


def work(shape: str) -> None:
    """Become a worker."""
    how = ("--max-prefetch", str(PREFETCH), "--log-level", "WARNING")
    become("taskiq", "worker", *how, *POOLS[shape], "bench.systems.taskiq:broker")
