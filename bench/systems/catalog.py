"""The systems: what each needs, what it can do, and how it is set; the adapters do it."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from bench.environments import Executable
from bench.systems.servers import (
    StartServer,
    beanstalkd,
    beanstalkd_server,
    floor,
    redis,
    redis_server,
    tq_broker,
)


class Shape(StrEnum):
    """How many worker processes there are, or what pool the one has."""

    ONE = "one"
    TWO = "two"
    THREADS = "threads"
    PROCESSES = "processes"


class Pace(StrEnum):
    """About how fast a system is, which decides how much it is given to do."""

    FAST = "fast"
    MIDDLE = "middle"
    SLOW = "slow"


class System(NamedTuple):
    """A system and how it is measured.

    ``executable`` finds or fetches the server's program where it is not this project's.
    ``requirements`` are what pip installs for it, none where it runs in the bench's own
    Python; ``libraries`` those whose versions are told.  ``plain`` are the shapes whose task
    is a plain function beside a system's coroutines.  ``twice``: two worker processes are
    two programs, not one with two children.  ``holds``: it can hold its tasks back itself;
    the worker of another is suspended.
    """

    title: str
    server: StartServer
    durabilities: tuple[str, ...]
    pace: Pace
    shapes: tuple[Shape, ...]
    settings: str
    executable: Callable[[], Executable] | None = None
    requirements: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    plain: tuple[Shape, ...] = ()
    twice: bool = False
    holds: bool = False
    keeps_results: bool = True


class Subject(NamedTuple):
    """A system at a durability: one column of the measurements."""

    system: str
    durability: str

    @property
    def title(self) -> str:
        """What tables and plots call it."""
        return f"{SYSTEMS[self.system].title}, {self.durability}"


REDIS = ("everysec", "always")

SYSTEMS: dict[str, System] = {
    "floor": System(
        "floor",
        floor,
        ("sync",),
        Pace.FAST,
        (Shape.ONE, Shape.TWO),
        "a bare broker of sockets, MessagePack and RocksDB, as told above",
        twice=True,
        holds=True,
        keeps_results=False,
    ),
    "tq": System(
        "tq",
        tq_broker,
        ("sync", "interval"),
        Pace.FAST,
        tuple(Shape),
        "the defaults; `interval` syncs every 50 ms",
        plain=(Shape.THREADS, Shape.PROCESSES),
        twice=True,
        holds=True,
    ),
    "celery": System(
        "Celery",
        redis,
        REDIS,
        Pace.SLOW,
        (Shape.ONE, Shape.TWO, Shape.THREADS),
        "`task_acks_late` and `task_reject_on_worker_lost`, `worker_prefetch_multiplier` 128, a connection for each "
        "calling thread, results ignored, no gossip, mingle or heartbeat; worker processes are its prefork pool",
        executable=redis_server,
        requirements=("celery[redis]>=5.5,<6", "hiredis>=3,<4"),
        libraries=("celery", "redis"),
    ),
    "dramatiq": System(
        "Dramatiq",
        redis,
        REDIS,
        Pace.SLOW,
        (Shape.ONE, Shape.TWO),
        "acknowledges when a task has run, as it always does; 8 threads a process, prefetch 128, no results; its pool "
        "is always one of threads",
        executable=redis_server,
        requirements=("dramatiq[redis]>=2,<3", "hiredis>=3,<4"),
        libraries=("dramatiq", "redis"),
    ),
    "taskiq": System(
        "taskiq",
        redis,
        REDIS,
        Pace.SLOW,
        tuple(Shape),
        "`RedisStreamBroker`, the one of its Redis brokers that acknowledges, when the result is saved; prefetch 100, "
        "uvloop, no result backend",
        executable=redis_server,
        requirements=("taskiq>=0.13,<0.14", "taskiq-redis>=1.2,<2", "hiredis>=3,<4", "uvloop>=0.21,<1"),
        libraries=("taskiq", "taskiq-redis", "redis"),
        plain=(Shape.THREADS, Shape.PROCESSES),
    ),
    "saq": System(
        "SAQ",
        redis,
        REDIS,
        Pace.SLOW,
        (Shape.ONE, Shape.TWO, Shape.THREADS),
        "concurrency 100, 3 attempts, so that a dead worker's task is run again, 100 operations at a time, no results",
        executable=redis_server,
        # It imports typing_extensions without asking for it.
        requirements=("saq[redis,hiredis]>=0.26,<0.27", "typing_extensions>=4,<5"),
        libraries=("saq", "redis"),
        plain=(Shape.THREADS,),
        twice=True,
    ),
    "huey": System(
        "Huey",
        redis,
        REDIS,
        Pace.SLOW,
        (Shape.ONE, Shape.TWO, Shape.THREADS),
        "`RedisHuey`, blocking reads, results of nothing not stored; it takes a task out before it runs and cannot be "
        "told otherwise, so a dead worker's tasks are lost",
        executable=redis_server,
        requirements=("huey>=3.5,<4", "redis>=5,<9", "hiredis>=3,<4"),
        libraries=("huey", "redis"),
    ),
    "beanstalkd": System(
        "beanstalkd, raw",
        beanstalkd,
        REDIS,
        Pace.MIDDLE,
        (Shape.ONE, Shape.TWO),
        "its protocol over a socket with no library: puts in flights of 500, reserves and deletes in flights of 100; "
        "`-f 0` is called always here, `-f 1000` everysec",
        executable=beanstalkd_server,
        twice=True,
        keeps_results=False,
    ),
}
