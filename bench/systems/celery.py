"""Celery on Redis."""

import celery

from bench.systems.client import BlockingClient
from bench.systems.loads import CALLERS_MAX, PROCESSES, TEXT, THREADS, count, started_at, url
from bench.systems.worker import become

RESULT_S_MAX = 30.0

app = celery.Celery("bench", broker=url(), backend=url())
app.conf.update(
    # Acknowledged when it has run: without both, a worker that dies loses what it holds.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Its guide "Optimizing": many for short tasks, and a connection for each thread that sends.
    worker_prefetch_multiplier=128,
    broker_pool_limit=CALLERS_MAX,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def noop(number: int, text: str) -> None:
    """Do nothing but count."""
    count()


@app.task(ignore_result=False)
def start(number: int, text: str) -> float:
    """Return when this runs."""
    return started_at()


class CeleryClient(BlockingClient):
    """Sends by `delay`; a group of tasks is a loop of it."""

    # Threads that wait for results in one process share one subscription, which is not made for that.
    latency_threads = 1

    def send(self, number: int) -> None:
        noop.delay(number, TEXT)

    def ask(self, number: int) -> float:
        return float(start.delay(number, TEXT).get(timeout=RESULT_S_MAX))


POOLS = {
    "one": ("--pool", "prefork", "--concurrency", "1"),
    "two": ("--pool", "prefork", "--concurrency", str(PROCESSES)),
    "threads": ("--pool", "threads", "--concurrency", str(THREADS)),
}


def client(_task: str) -> CeleryClient:
    """Return the client; there is one kind of task."""
    return CeleryClient()


def work(shape: str) -> None:
    """Become a worker."""
    alone = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning")
    become("celery", "-A", "bench.systems.celery", "worker", *alone, *POOLS[shape])
