"""Huey on Redis.

Huey takes a task out of Redis before it runs, whatever is set: a worker that dies loses the tasks it holds.
"""

from huey import RedisHuey

from bench.systems.client import BlockingClient
from bench.systems.loads import PROCESSES, TEXT, THREADS, count, started_at, url
from bench.systems.worker import become

RESULT_S_MAX = 30

# Who waits for a result is woken, not left to poll. A result that is None is not stored.
huey = RedisHuey("bench", url=url(), notify_result=True)


@huey.task()
def noop(number: int, text: str) -> None:
    """Do nothing but count."""
    count()


@huey.task()
def start(number: int, text: str) -> float:
    """Return when this runs."""
    return started_at()


class HueyClient(BlockingClient):
    """Sends by calling the task; `map` is a loop of that."""

    def send(self, number: int) -> None:
        noop(number, TEXT)

    def ask(self, number: int) -> float:
        return float(start(number, TEXT).get(blocking=True, timeout=RESULT_S_MAX))


POOLS = {
    "one": ("--worker-type", "process", "--workers", "1"),
    "two": ("--worker-type", "process", "--workers", str(PROCESSES)),
    "threads": ("--worker-type", "thread", "--workers", str(THREADS)),
}


def client(_task: str) -> HueyClient:
    """Return the client; there is one kind of task."""
    return HueyClient()


def work(shape: str) -> None:
    """Become a worker."""
    become("huey_consumer", "--quiet", *POOLS[shape], "bench.systems.huey.huey")
