"""beanstalkd, raw: its protocol over a socket, many commands written before their replies are read.

It keeps no results, so where latency is measured the worker is a second connection of the client.
"""

import asyncio
import time
from collections.abc import Sequence

from bench.systems.client import AsyncClient
from bench.systems.loads import FRAME_TASKS, TEXT, count, port

BATCH = 100
"""Tasks that a worker asks for in one write."""
RELIABLE_S = 60
"""Seconds until the server takes back what a worker holds."""


class Connection:
    """One connection: commands in, the first line of each reply out, in the same order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls) -> "Connection":
        """Return a connection to the server."""
        return cls(*await asyncio.open_connection("127.0.0.1", port()))

    async def put(self, numbers: Sequence[int]) -> None:
        """Enqueue tasks, whose payload is a number and the text."""
        for number in numbers:
            body = f"{number} {TEXT}".encode()
            self._writer.write(b"put 0 0 %d %d\r\n%s\r\n" % (RELIABLE_S, len(body), body))
        for _ in numbers:
            await self._reply(b"INSERTED")

    async def take(self, most: int) -> list[tuple[bytes, int]]:
        """Wait for a task, and return it and up to so many in all: the id and the number of each."""
        # Only the first may wait: a command behind one that waits waits too.
        self._writer.write(b"reserve\r\n" + b"reserve-with-timeout 0\r\n" * (most - 1))
        replies = [await self._taken() for _ in range(most)]
        return [reply for reply in replies if reply is not None]

    async def delete(self, tasks: Sequence[bytes]) -> None:
        """Tell that tasks are done."""
        for task in tasks:
            self._writer.write(b"delete %s\r\n" % task)
        for _ in tasks:
            await self._reply(b"DELETED")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _taken(self) -> tuple[bytes, int] | None:
        line = await self._reader.readline()
        if line == b"TIMED_OUT\r\n":
            return None
        word, task, size = line.split()
        assert word == b"RESERVED", f"beanstalkd said {line!r}"
        body = await self._reader.readexactly(int(size) + 2)
        return task, int(body.partition(b" ")[0])

    async def _reply(self, expected: bytes) -> None:
        line = await self._reader.readline()
        assert line.startswith(expected), f"beanstalkd said {line!r}, not {expected!r}"


class BeanstalkdClient(AsyncClient):
    """Sends by `put`; a caller has a connection of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._free: list[Connection] = []
        self._started: dict[int, asyncio.Future[float]] = {}

    async def close(self) -> None:
        for connection in self._free:
            connection.close()

    async def send(self, number: int) -> None:
        connection = self._free.pop() if self._free else await Connection.open()
        await connection.put([number])
        self._free.append(connection)

    async def run_bulk(self, tasks: int) -> None:
        connection = await Connection.open()
        for first in range(0, tasks, FRAME_TASKS):
            await connection.put(range(first, min(first + FRAME_TASKS, tasks)))
        self._free.append(connection)

    async def run_latency(self, tasks: int) -> list[tuple[float, float]]:
        worker = asyncio.create_task(self._work())
        pairs = await super().run_latency(tasks)
        worker.cancel()
        return pairs

    async def ask(self, number: int) -> float:
        started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._started[number] = started
        await self.send(number)
        return await started

    async def _work(self) -> None:
        connection = await Connection.open()
        while True:
            for task, number in await connection.take(1):
                self._started.pop(number).set_result(time.monotonic())
                await connection.delete([task])
                count()


async def _work() -> None:
    """Take tasks and delete them, in batches."""
    connection = await Connection.open()
    while True:
        tasks = [task for task, _ in await connection.take(BATCH)]
        await connection.delete(tasks)
        count(len(tasks))


def client(_task: str) -> BeanstalkdClient:
    """Return the client; there is one kind of task."""
    return BeanstalkdClient()


def work(_shape: str) -> None:
    """Be a worker."""
    asyncio.run(_work())
