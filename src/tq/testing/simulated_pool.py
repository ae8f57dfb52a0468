"""The process pool without processes: the real pool, whose children live on the virtual loop.

Real are the pool, its seats and the frames between it and its children
(`tq.worker.pools.processes`); simulated are the processes: each runs its handler as an
asyncio task, and may be killed at any instant.  What a child does with threads and signals
(`tq.worker.pools.child`) cannot run on virtual time, nor can the thread pool: real
processes test them.

Invariant: a child that has died says nothing more, and its end is heard once.
"""

import asyncio
import random
import signal
from typing import Any, cast

import msgspec

from tq.app.registry import Registry
from tq.protocol.frames import FrameReader, encode_frame
from tq.testing.network import Connection
from tq.testing.transport import Conditions
from tq.worker.assignment import Assignment, Outcome
from tq.worker.executor import Executor
from tq.worker.pools.parent import ParentEnd
from tq.worker.pools.pipe import Kind, Setup, decode_run, decode_setup, decode_stop, encode, ended
from tq.worker.pools.pool import Pool
from tq.worker.pools.processes import ProcessPool, Upbringing
from tq.worker.worker import Worker

_STARTS_S = (0.01, 0.2)
# What the pool sees of a child whose socket has ended.
_EXIT_ALONE = 69


class SimulatedProcess(asyncio.Protocol):
    """One child: its process, to the pool, and its end of the socket."""

    def __init__(self, pid: int, executor: Executor, chance: random.Random) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._executor = executor
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._running: asyncio.Task[None] | None = None
        self._work: Assignment | None = None

    # ------------------------------------------------------------------ its process

    async def wait(self) -> int:
        """Wait for its end; return what the operating system tells of it."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """End it at once."""
        self._end(-signal.SIGKILL)

    @property
    def is_busy(self) -> bool:
        """Whether it runs a task."""
        return self._work is not None

    def _end(self, status: int) -> None:
        if self.returncode is not None:
            return
        self.returncode = status
        self._exited.set_result(status)
        if self._running is not None:
            self._running.cancel()
        if self._transport is not None:
            # As with a real socket pair: what it has sent can still be read.
            self._transport.close()

    # ------------------------------------------------------------------ its socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take its end of the socket."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End: its parent is gone, or has let it go."""
        self._end(_EXIT_ALONE)

    def data_received(self, data: bytes) -> None:
        """Do what the parent asks for."""
        for frame in self._reader.feed(data):
            match Kind(frame.kind):
                case Kind.SETUP:
                    decode_setup(frame.body)
                    self._loop.call_later(self._chance.uniform(*_STARTS_S), self._send, Kind.READY, 0)
                case Kind.RUN:
                    run = decode_run(frame.body)
                    self._executor.result_bytes_max = run.result_bytes_max
                    plan = self._executor.plan(run.task.spec)
                    self._work = Assignment(0, frame.correlation, run.task, plan, 0.0)
                    self._send(Kind.STARTED, frame.correlation)
                    self._running = self._loop.create_task(self._executor.run(self._work, self._settle))
                case Kind.STOP:
                    if self._work is not None and self._work.index == frame.correlation and self._running is not None:
                        self._work.stop = decode_stop(frame.body)
                        self._running.cancel()
                case Kind.REMIND:
                    if self._work is not None and self._work.index == frame.correlation and self._running is not None:
                        self._work.soft_is_due = True
                        self._running.cancel()
                case Kind.READY | Kind.BROKEN | Kind.STARTED | Kind.OUTCOME:
                    raise AssertionError("a parent sends no such frame")

    def _settle(self, work: Assignment, outcome: Outcome) -> None:
        self._work = None
        self._send(Kind.OUTCOME, work.index, encode(ended(outcome)))

    def _send(self, kind: Kind, correlation: int, body: bytes = b"") -> None:
        if self.returncode is None and self._transport is not None:
            self._transport.write(encode_frame(kind, correlation, body))


class ChildrenOf:
    """What children are made of: the handlers they would import, their chance, and how many tasks each runs."""

    def __init__(self, registry: Registry, chance: random.Random, tasks_max: int | None = None) -> None:
        self.tasks_max = tasks_max
        self.registry = registry
        self.chance = chance


class SimulatedProcessPool(ProcessPool):
    """The pool, and the processes it has started."""

    def __init__(
        self,
        executor: Executor,
        concurrency: int,
        worker: str,
        children: ChildrenOf,
    ) -> None:
        upbringing = Upbringing("simulated:app", tasks_max=children.tasks_max)
        # What the machine's kernel does has no part in a simulation.
        super().__init__(executor, concurrency, worker, upbringing, oom_kills=lambda: 0)
        self._chance = children.chance
        self._registry = children.registry
        self._processes: list[SimulatedProcess] = []

    def kill_one(self) -> int | None:
        """Kill a child, a busy one if there is any; return its pid, None if there is none."""
        alive = [process for process in self._processes if process.returncode is None]
        alive = [process for process in alive if process.is_busy] or alive
        if not alive:
            return None
        process = self._chance.choice(alive)
        process.kill()
        return process.pid

    async def _spawn(self) -> ParentEnd:
        executor = Executor(self._registry, self._worker)
        process = SimulatedProcess(len(self._processes) + 1, executor, self._chance)
        self._processes.append(process)
        child = ParentEnd(cast(asyncio.subprocess.Process, process), self._listener, self._is_idle)
        self._children.add(child)
        pair = Connection(asyncio.get_running_loop(), self._chance, Conditions(), ("parent", 0), ("child", process.pid))
        pair.server.open(process)
        pair.client.open(child)
        await asyncio.sleep(0)
        if self._stopping.is_set():
            child.close()
        # Not as the real one is told: the length of a message must not hang on where the simulator runs.
        child.send(Kind.SETUP, 0, encode(Setup("simulated:app", self._worker, [], 0, [])))
        return child


class SimulatedWorker(Worker):
    """A worker whose process pool is the simulated one, and who is not told apart by the machine that simulates it."""

    def __init__(self, *args: Any, children: ChildrenOf, **options: Any) -> None:  # noqa: ANN401 - the worker's own
        self._children = children
        super().__init__(*args, **options)
        # The lengths of messages, and with them their ways, must not hang on where the simulator runs.
        self._info = msgspec.structs.replace(self._info, host="simulated", pid=1, version="simulated")

    def kill_child(self) -> int | None:
        """Kill a child of its pool; return its pid, None if it has none."""
        return self._pool.kill_one() if isinstance(self._pool, SimulatedProcessPool) else None

    def _make_pool(self, pool: str, concurrency: int, upbringing: Upbringing | None) -> Pool:
        if pool == "process":
            return SimulatedProcessPool(self._executor, concurrency, self._name, self._children)
        return super()._make_pool(pool, concurrency, upbringing)
