"""One broker on one data directory, over its restarts: what it holds, and how fast it goes.

Invariant: no process that was started here outlives its ``with`` block.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import environments
from bench.depth.tasks import TALLY_VARIABLE, tally_of
from bench.systems.loads import FRAME_TASKS, FRAMES_IN_FLIGHT
from tq.client import AsyncClient, QueueAction, TcpDialer
from tq.core.task import Task
from tq.protocol.messages import Stats
from tq.testing.programs import Program, broker_url, start_broker, start_worker

_POLL_S = 0.01
_DISK_POLL_S = 0.25
_RESTORE_S_MAX = 120.0
_MIB = 1 << 20


class DeepBroker:
    """A tq-broker with its defaults, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._program: Program | None = None
        self._client: AsyncClient | None = None
        self._url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end(signal.SIGTERM)

    @property
    def client(self) -> AsyncClient:
        """The client."""
        assert self._client is not None, "the broker runs"
        return self._client

    async def start(self) -> float:
        """Start it, and return the seconds until it has answered a first request."""
        began = time.monotonic()
        self._program = start_broker(
            "--data", str(self._data), "--log-level", "warning", log=self._directory / "broker.log"
        )
        self._url = broker_url(self._program)
        self._client = AsyncClient(TcpDialer.of(self._url), request_timeout_s=120.0)
        await self._client.ping()
        return time.monotonic() - began

    async def restart(self) -> float:
        """Kill it, start it again, and return the seconds that the start took."""
        await self._end(signal.SIGKILL)
        return await self.start()

    async def restore_s(self) -> float:
        """Stop it and start it again; return the seconds that an engine in a process of its own takes for the rows."""
        await self._end(signal.SIGTERM)
        command = [sys.executable, "-m", "bench.depth.restore", str(self._data)]
        with Program.start(
            command, log=self._directory / "restore.log", directory=environments.ROOT, environment=environments.ours()
        ) as engine:
            seconds = float(engine.read_line(_RESTORE_S_MAX))
        await self.start()
        return seconds

    async def _end(self, number: signal.Signals) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._program is not None:
            with self._program as program:
                self._program = None
                program.end(number)

    # ------------------------------------------------------------------ rates

    async def enqueue(self, tasks: Iterable[Task]) -> float:
        """Enqueue *tasks* in frames, several at a time; return how many a second."""
        remaining = iter(tasks)
        count = 0

        async def call() -> None:
            nonlocal count
            while frame := list(islice(remaining, FRAME_TASKS)):
                await self.client.enqueue_many(frame)
                # Not in one step with the waiting: the others count meanwhile.
                count += len(frame)

        began = time.monotonic()
        await asyncio.gather(*(call() for _ in range(FRAMES_IN_FLIGHT)))
        return count / (time.monotonic() - began)

    async def drain(self, count: int, queues: Sequence[str]) -> float:
        """Let one worker process run *count* tasks; return how many a second, without its start and its end.

        The worker counts them, in memory that both share: the broker's own figures cost it a look at each queue.
        """
        path = self._directory / "tally"
        path.unlink(missing_ok=True)
        tally = tally_of(path)
        words = ("-A", "bench.depth.tasks:app", "-Q", ",".join(queues), "--url", self._url)
        environment = {**environments.ours(), TALLY_VARIABLE: str(path)}
        with start_worker(*words, log=self._directory / "worker.log", environment=environment) as worker:
            first = last = (time.monotonic(), tally[0])
            while last[1] < count:
                await asyncio.sleep(_POLL_S)
                worker.check()
                last = (time.monotonic(), tally[0])
                if first[1] == 0:
                    first = last
            worker.stop()
        took = last[0] - first[0]
        return (last[1] - first[1]) / took if took else last[1] / _POLL_S

    async def purge(self, queues: Sequence[str]) -> None:
        """Drop what waits."""
        for name in queues:
            await self.client.control_queue(name, QueueAction.PURGE)

    async def stats(self) -> Stats:
        """Return the broker's figures."""
        return await self.client.stats()

    # ------------------------------------------------------------------ room

    async def rss_mib(self) -> float:
        """Return what it has in memory."""
        return (await self.stats()).rss_bytes / _MIB

    def rss_peak_mib(self) -> float:
        """Return the most that it has had in memory since it was started."""
        assert self._program is not None, "the broker runs"
        status = Path(f"/proc/{self._program.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1_024 / _MIB

    def disk_mib(self) -> float:
        """Return what its data directory takes."""
        total = 0
        for folder, _, files in os.walk(self._data):
            for name in files:
                try:
                    total += (Path(folder) / name).stat().st_blocks * 512
                except FileNotFoundError:
                    continue  # compacted away meanwhile
        return total / _MIB

    async def reclaimed_s(self, target_mib: float, seconds_max: float) -> float | None:
        """Return the seconds until its data takes at most *target_mib*; None if that takes too long."""
        began = time.monotonic()
        while self.disk_mib() > target_mib:
            if time.monotonic() - began > seconds_max:
                return None
            await asyncio.sleep(_DISK_POLL_S)
        return time.monotonic() - began
