"""What is measured: the product's real programs, and the floor's, each started fresh for one scenario.

Invariant: both are asked the same ways: hold back, let go, how much is done.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench.floor import Kind
from bench.floor_peers import FloorClient
from bench.noop import QUEUE, app
from examples.stdlib_index.programs import Program, tq
from tq.client import QueueAction
from tq.core.errors import QueueNotFound

_POLL_S = 0.01
_UNTIL_S_MAX = 300.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main_thread_seconds(process: int) -> float:
    """Return the CPU time that the main thread of *process* has used; see proc(5), fields 14 and 15."""
    text = Path(f"/proc/{process}/task/{process}/stat").read_text(encoding="ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, which costs the broker next to nothing, until the answer is yes."""
    async with asyncio.timeout(_UNTIL_S_MAX):
        while not await condition():  # noqa: ASYNC110 - what is asked for is in another process
            await asyncio.sleep(_POLL_S)


class Tq:
    """A running tq-broker; the app of `bench.noop` speaks to it."""

    def __init__(self, broker: Program, directory: Path) -> None:
        self._broker = broker
        self._directory = directory

    @property
    def broker_pid(self) -> int:
        """The broker's process id."""
        return self._broker.pid

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run one tq-worker with its defaults: the async pool, adaptive prefetch."""
        command = tq("tq-worker", "-A", "bench.noop:app", "--log-level", "warning")
        with Program.start(command, log=self._directory / "worker.log") as worker:
            yield
            worker.stop()

    async def hold(self) -> None:
        """Deliver nothing from now on; the queue must exist."""
        await app.async_client.control_queue(QUEUE, QueueAction.PAUSE)

    async def let_go(self) -> None:
        """Deliver again."""
        await app.async_client.control_queue(QUEUE, QueueAction.RESUME)

    async def until_served(self) -> None:
        """Wait for a worker."""
        await _until(self._is_served)

    async def until_done(self, tasks: int) -> None:
        """Wait until so many tasks have been completed in all."""

        async def is_done() -> bool:
            (queue,) = await app.async_client.queues(QUEUE)
            return queue.completed_total >= tasks

        await _until(is_done)

    @staticmethod
    async def _is_served() -> bool:
        try:
            (queue,) = await app.async_client.queues(QUEUE)
        except QueueNotFound:
            return False
        return queue.workers > 0


@asynccontextmanager
async def running_tq(durability: str) -> AsyncIterator[Tq]:
    """Run a fresh tq-broker, its data in the system's temporary directory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        words = ("--listen", "127.0.0.1:0", "--data", str(directory / "data"), "--durability", durability)
        command = tq("tq-broker", *words, "--log-level", "warning")
        with Program.start(command, log=directory / "broker.log") as broker:
            os.environ["TQ_URL"] = f"tq://{broker.first_line().removeprefix('listening on ')}"
            try:
                yield Tq(broker, directory)
            finally:
                await app.aclose()
            broker.stop()


class Floor:
    """A running floor; ``client`` is a connection to it."""

    def __init__(self, broker: Program, directory: Path, port: int, client: FloorClient) -> None:
        self._broker = broker
        self._directory = directory
        self.port = port
        self.client = client

    @property
    def broker_pid(self) -> int:
        """The broker's process id."""
        return self._broker.pid

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run one worker process."""
        command = [sys.executable, "-m", "bench.floor_peers", str(self.port)]
        with Program.start(command, log=self._directory / "worker.log"):
            yield

    async def hold(self) -> None:
        """Deliver nothing from now on."""
        await self.client.request(Kind.HOLD, b"\x01")

    async def let_go(self) -> None:
        """Deliver again."""
        await self.client.request(Kind.HOLD, b"\x00")

    async def until_served(self) -> None:
        """Wait for a worker."""

        async def is_served() -> bool:
            return (await self.client.count()).workers > 0

        await _until(is_served)

    async def until_done(self, tasks: int) -> None:
        """Wait until so many tasks have been done in all."""

        async def is_done() -> bool:
            return (await self.client.count()).done >= tasks

        await _until(is_done)


@asynccontextmanager
async def running_floor() -> AsyncIterator[Floor]:
    """Run a fresh floor, its data in the system's temporary directory."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = [sys.executable, "-m", "bench.floor", str(directory / "data")]
        with Program.start(command, log=directory / "broker.log") as broker:
            port = int(broker.first_line().rpartition(":")[2])
            client = await FloorClient.connect(port)
            try:
                yield Floor(broker, directory, port, client)
            finally:
                client.transport.close()
