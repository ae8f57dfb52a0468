"""A worker's life: connect, take tasks and run them, and leave in good order.

    worker = Worker(app.registry, dialer, queues=[("default", 1)], concurrency=100)
    await worker.run()              # until request_stop()

Invariant: whatever ends the worker, each task it held has been settled or handed back,
or is still under its lease for the broker to give to another.
"""

import asyncio
import logging
import os
import random
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from tq import __version__
from tq.app.lifespan import Hooks
from tq.app.registry import Registry
from tq.client.dialer import Dialer
from tq.core.errors import ConfigError
from tq.core.ids import format_id
from tq.core.worker import WorkerInfo
from tq.protocol.messages import Ping, QueueWeight, Subscribe
from tq.worker.dispatcher import Dispatcher
from tq.worker.executor import Executor
from tq.worker.identity import Identity
from tq.worker.keeper import POLL_S, Keeper, Pulse, ThreadKeeper
from tq.worker.lifespan import Lifespan
from tq.worker.link import Link
from tq.worker.pools.aio import AsyncPool
from tq.worker.pools.pool import Pool
from tq.worker.pools.processes import ProcessPool, Upbringing
from tq.worker.pools.seats import Seats
from tq.worker.pools.threads import ThreadPool
from tq.worker.state import StateFile

_log = logging.getLogger(__name__)

# Often enough for time limits and hand-backs, which count in tenths of a second.
_TICK_S = 0.05
assert _TICK_S < POLL_S

# The second signal: what cannot be ended and settled within this time is left to the broker.
_QUICK_S = 2.0
# Two answers in a row without a delivery in between: one alone may have crossed with a delivery.
_QUIET_ANSWERS = 2

POOLS = ("async", "thread", "process")


class Worker:
    """Runs the tasks of an app for a broker.

    ``queues`` are names with weights, 1 or more; ``weighted`` gives queues turns by their
    weights at equal priority, instead of the older task.  ``concurrency`` is how many
    tasks run at a time: coroutines, threads or processes, by ``pool``.  ``prefetch`` is
    how many tasks to hold besides (None: about 50 ms of work).  ``burst``: end when the
    queues are empty.  ``drain_timeout_s``: how long a stop waits for what runs.  ``app`` is where
    child processes import the app from, ``module:name``; the process pool needs it.
    ``child_logs`` is what sets up their logging, ``module:function`` and its arguments;
    without it they log text, at the level of this process.  ``max_tasks_per_child`` and
    ``max_memory_per_child`` (bytes): after so many tasks, or with more memory than that
    after one, another child takes the place of one.  ``children_min``: start with so many
    children, and have up to ``concurrency`` as long as they are busy.  ``labels`` are shown in lists of
    workers; ``state_file`` is kept while the worker runs, as its sign of life.

    ``draw``, ``entropy`` and ``keeper`` are chance and heartbeats, to be replaced in a
    simulation; time is the running loop's.
    """

    def __init__(
        self,
        registry: Registry,
        dialer: Dialer,
        *,
        queues: Sequence[tuple[str, int]],
        weighted: bool = False,
        concurrency: int = 100,
        pool: str = "async",
        prefetch: int | None = None,
        burst: bool = False,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        state_file: StateFile | None = None,
        drain_timeout_s: float = 30.0,
        app: str | None = None,
        child_logs: Sequence[str] = (),
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        children_min: int | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        draw: Callable[[], float] = random.random,
        keeper: Keeper | None = None,
    ) -> None:
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._dialer = dialer
        self._draw = draw
        self._identity = Identity(entropy)
        self._keeper = keeper or ThreadKeeper(dialer, draw)
        self._subscription = Subscribe([QueueWeight(name, weight) for name, weight in queues], weighted)
        self._is_burst = burst
        self._drain_timeout_s = drain_timeout_s
        self._state_file = state_file
        self._stopping = asyncio.Event()
        self._patience: asyncio.Timeout | None = None
        self._executor = Executor(registry, self._name)
        # Hooks run where handlers do: those of the process pool in its children.
        self._lifespan = Lifespan(Hooks() if pool == "process" else registry.hooks)
        limits = (max_tasks_per_child, max_memory_per_child, children_min)
        upbringing = Upbringing(app, child_logs, *limits) if app else None
        self._pool = self._make_pool(pool, concurrency, upbringing)
        self._concurrency, self._prefetch = concurrency, prefetch
        self._info = WorkerInfo(
            self._name,
            socket.gethostname(),
            os.getpid(),
            pool,
            concurrency,
            [handler.name for handler in registry],
            f"tq {__version__}, Python {sys.version.split()[0]}",
            dict(labels or {}),
        )
        registry.check()

    def _make_pool(self, pool: str, concurrency: int, upbringing: Upbringing | None) -> Pool:
        match pool:
            case "async":
                return AsyncPool(self._executor, concurrency)
            case "thread":
                return ThreadPool(self._executor, Seats(concurrency))
            case "process":
                if upbringing is None:
                    raise ConfigError("the process pool needs to know where to import the app from, module:name")
                return ProcessPool(self._executor, concurrency, self._name, upbringing)
            case _:
                raise ConfigError(f"a pool is one of {', '.join(POOLS)}; got {pool!r}")

    @property
    def stuck(self) -> list[str]:
        """The names of tasks that were given up and whose handlers still run, and keep their seats."""
        return self._pool.stuck

    def request_stop(self) -> None:
        """Leave: at first by finishing what runs, the second time at once.  Call it in the loop."""
        if not self._stopping.is_set():
            _log.info("stopping: what runs has %g s to end; ask again to leave at once", self._drain_timeout_s)
            self._stopping.set()
        elif self._patience is not None:
            _log.info("leaving at once")
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Work until asked to stop (in a burst: until the queues are empty), then leave in good order.

        A burst does not wait for tasks that are scheduled, retries among them, nor for what
        other workers run.  Without a broker the worker waits for one.  Cancelling it is
        leaving at once: what runs is stopped and handed on; cancelled once more, it does not
        even wait for that.

        Raises:
            BrokerError: The broker refuses the queues.
            ConfigError: A child process cannot be started, or cannot import the app.
            HookFailed: A hook of the app raised at the start.
        """
        await self._lifespan.start()
        self._executor.provided = self._lifespan.provided
        try:
            await self._work()
        finally:
            await asyncio.create_task(self._lifespan.stop())

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        dispatcher = Dispatcher(self._pool, self._executor, self._concurrency, self._prefetch, clock)
        link = Link(
            self._dialer,
            self._identity,
            dispatcher,
            self._info,
            self._subscription,
            clock=clock,
            draw=self._draw,
        )
        await dispatcher.start(link)
        pulse = Pulse(dispatcher.unmarked)
        steady = [asyncio.create_task(link.run()), asyncio.create_task(self._tick(pulse, dispatcher, link))]
        self._keeper.start(pulse, self._identity)
        try:
            await self._until_time_to_leave(steady, dispatcher, link)
            await self._drain(dispatcher)
        finally:
            # A task of its own: a cancellation that ended this one must not reach into its time limit.
            await asyncio.create_task(self._end(steady, dispatcher, link))

    async def _until_time_to_leave(self, steady: list[asyncio.Task[None]], dispatcher: Dispatcher, link: Link) -> None:
        """Wait for the end of the work; raise what ended the link or the ticking, which otherwise go on."""
        reasons: list[asyncio.Task[object]] = [asyncio.create_task(self._stopping.wait())]
        if self._is_burst:
            reasons.append(asyncio.create_task(_until_queues_are_empty(dispatcher, link)))
        try:
            ended, _ = await asyncio.wait([*steady, *reasons], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in reasons:
                task.cancel()
            await asyncio.wait(reasons)
        for task in ended:
            task.result()

    async def _tick(self, pulse: Pulse, dispatcher: Dispatcher, link: Link) -> None:
        while True:
            pulse.beat(self.stuck)
            dispatcher.tick()
            link.tick()
            if self._state_file is not None:
                self._state_file.note(asyncio.get_running_loop().time(), connected=link.is_open)
            await asyncio.sleep(POLL_S if dispatcher.holdings.is_empty else _TICK_S)

    async def _drain(self, dispatcher: Dispatcher) -> None:
        """Take nothing more, and wait for what runs, as long as the drain may take."""
        dispatcher.leave()
        try:
            async with asyncio.timeout(self._drain_timeout_s) as self._patience:
                await dispatcher.until(lambda: dispatcher.holdings.is_empty)
        except TimeoutError:
            pass
        finally:
            self._patience = None

    async def _end(self, steady: list[asyncio.Task[None]], dispatcher: Dispatcher, link: Link) -> None:
        """Stop what still runs, settle, say goodbye, and end all that was started."""
        try:
            await self._leave_at_once(dispatcher, link)
        finally:
            for task in steady:
                task.cancel()
            await asyncio.wait(steady)
            await self._keeper.stop()
            await self._pool.stop()
            if self._state_file is not None:
                self._state_file.remove()

    async def _leave_at_once(self, dispatcher: Dispatcher, link: Link) -> None:
        holdings = dispatcher.holdings
        dispatcher.leave()
        dispatcher.stop_running()
        try:
            async with asyncio.timeout(_QUICK_S):
                await dispatcher.until(lambda: holdings.is_empty)
                await link.leave()
        except TimeoutError:
            pass
        for work in holdings.running:
            _log.error(
                "task %s %s does not end when it is told to; it is left behind, and runs again when its lease is over",
                work.plan.name,
                format_id(work.task.id),
            )
        if holdings.unsettled:
            _log.error(
                "left without a broker to take the outcomes of %d tasks: they will run again",
                holdings.unsettled,
            )


async def _until_queues_are_empty(dispatcher: Dispatcher, link: Link) -> None:
    quiet = 0
    while quiet < _QUIET_ANSWERS:
        await dispatcher.until(lambda: link.is_open and dispatcher.holdings.is_empty and not dispatcher.lacks_seats)
        # The broker answers after it has handed out what there is.
        deliveries = dispatcher.deliveries
        is_quiet = await link.ask(Ping()) and dispatcher.deliveries == deliveries
        quiet = quiet + 1 if is_quiet else 0
