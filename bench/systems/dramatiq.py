"""Dramatiq on Redis."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.systems.client import BlockingClient
from bench.systems.loads import PROCESSES, TEXT, THREADS, count, started_at, url
from bench.systems.worker import become

RESULT_MS_MAX = 30_000
PREFETCH = 128

broker = RedisBroker(url=url())
# A result is kept of actors that ask for it only.
broker.add_middleware(Results(backend=RedisBackend(url=url())))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(number: int, text: str) -> None:
    """Do nothing but count."""
    count()


@dramatiq.actor(store_results=True)
def start(number: int, text: str) -> float:
    """Return when this runs."""
    return started_at()


class DramatiqClient(BlockingClient):
    """Sends by `send`; a group of tasks is a loop of it."""

    def send(self, number: int) -> None:
        noop.send(number, TEXT)

    def ask(self, number: int) -> float:
        return float(start.send(number, TEXT).get_result(block=True, timeout=RESULT_MS_MAX))


WORKERS = {"one": 1, "two": PROCESSES}


def client(_task: str) -> DramatiqClient:
    """Return the client; there is one kind of task."""
    return DramatiqClient()


def work(shape: str) -> None:
    """Become a worker."""
    # Twice the threads is the default; each fetch is a round trip to Redis.
    os.environ["dramatiq_queue_prefetch"] = str(PREFETCH)  # noqa: SIM112 - its name is in small letters
    become("dramatiq", "--processes", str(WORKERS[shape]), "--threads", str(THREADS), "bench.systems.dramatiq")
