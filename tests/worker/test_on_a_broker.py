"""The worker on the real broker: handlers that misbehave, and a broker that goes away."""

import asyncio
import logging
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.worker.misbehaving import app
from tq.app.app import App
from tq.broker.config import Address, BrokerSettings
from tq.broker.embedded import EmbeddedBroker, standard_log
from tq.broker.service import BrokerService
from tq.broker.sources import Sources
from tq.client.async_client import AsyncClient
from tq.client.dialer import Dialer, TcpDialer
from tq.core.ids import TaskId
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import TaskResult
from tq.core.task import Task
from tq.server.tcp import bound, listen
from tq.store.memory import MemoryStore
from tq.worker.worker import Worker

pytestmark = pytest.mark.acceptance

PATIENCE_S = 30.0


def task(name: str, *args: object) -> Task:
    handler = app.registry.get(name)
    assert handler is not None
    return Task(handler.spec, handler.calls("msgpack").encode(args, {}))


@asynccontextmanager
async def working(dialer: Dialer, pool: str = "async", *, concurrency: int = 4) -> AsyncIterator[Worker]:
    """A worker that is told to stop in the end, and has to do so in good order."""
    worker = Worker(
        app.registry,
        dialer,
        queues=[("default", 1)],
        pool=pool,
        concurrency=concurrency,
        app="tests.worker.misbehaving:app",
    )
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.request_stop()
        async with asyncio.timeout(PATIENCE_S):
            await running


class RestartableBroker:
    """A broker in this loop, over TCP, whose tasks outlive it."""

    def __init__(self, *, heartbeat_ms: int = 2_000, lease_ms: int = 10_000) -> None:
        self._store = MemoryStore()
        self._settings = BrokerSettings(store="memory", drain_ms=100, heartbeat_ms=heartbeat_ms, lease_ms=lease_ms)
        self._address = Address("127.0.0.1", 0)

    async def start(self) -> None:
        sources = Sources(lambda: time.time_ns() // 1_000_000, time.monotonic, random.random, lambda: 0)
        log = standard_log(logging.getLogger("tq.broker"))
        self._service = BrokerService(self._store, self._settings, sources, log)
        await self._service.start()
        self._server = await listen(self._service, self._address)
        self._address = bound(self._server)

    async def stop(self) -> None:
        self._server.close()
        await self._service.stop()

    @property
    def dialer(self) -> TcpDialer:
        return TcpDialer.of(f"tq://{self._address.host}:{self._address.port}")


async def worker_process(dialer: TcpDialer) -> int:
    """Run a worker in a process of its own until it ends; return its exit code."""
    (endpoint,) = dialer._endpoints
    program = "import sys; sys.path[:] = sys.argv.pop(1).split(':'); from tq.bin.worker import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, ":".join(sys.path), "-A", "tests.worker.misbehaving", "--url", f"tq://{endpoint}"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ends(client: AsyncClient, ids: list[TaskId]) -> list[TaskResult]:
    """Wait until all have ended; return how, in the order of *ids*."""
    found = {outcome.id: outcome async for outcome in client.wait_many(ids, PATIENCE_S)}
    return [found[task_id] for task_id in ids]


EVERYWHERE = [
    ("double", (4,), TaskState.COMPLETED, None, None),
    ("plain", (4,), TaskState.COMPLETED, None, None),
    ("flaky", (2,), TaskState.COMPLETED, None, None),
    ("fail", (), TaskState.DEAD, DeadReason.ATTEMPTS, "ValueError"),
    ("leave", (), TaskState.DEAD, DeadReason.ATTEMPTS, "SystemExit"),
    ("reject", (), TaskState.DEAD, DeadReason.REJECTED, "Reject"),
    ("unencodable", (), TaskState.DEAD, DeadReason.REJECTED, "NotSerializable"),
    ("large", (), TaskState.DEAD, DeadReason.REJECTED, "PayloadTooLarge"),
    ("hang", (), TaskState.DEAD, DeadReason.ATTEMPTS, "TaskTimeout"),
    ("hang_plain", (), TaskState.DEAD, DeadReason.ATTEMPTS, "TaskTimeout"),
]
IN_PROCESSES = [
    ("exit", (), TaskState.DEAD, DeadReason.ATTEMPTS, "WorkerProcessDied"),
    ("crash", (), TaskState.DEAD, DeadReason.ATTEMPTS, "WorkerProcessDied"),
]


@pytest.mark.parametrize("pool", ["async", "thread", "process"])
async def test_every_handler_ends_as_documented(pool: str) -> None:
    table = EVERYWHERE + (IN_PROCESSES if pool == "process" else [])
    with App("memory:") as memory:
        async with AsyncClient(memory.dialer()) as client, working(memory.dialer(), pool):
            ids = await client.enqueue_many([task(name, *args) for name, args, *_ in table])
            outcomes = await ends(client, ids)

    seen = [
        (name, outcome.state, outcome.reason, outcome.failure.type if outcome.failure else None)
        for (name, *_), outcome in zip(table, outcomes, strict=True)
        if outcome.state is TaskState.DEAD
    ]
    assert seen == [(name, state, reason, kind) for name, _, state, reason, kind in table if reason is not None]
    assert [outcome.losses for outcome in outcomes] == [0] * len(table)


async def test_arguments_that_do_not_fit_are_in_the_dead_letter_after_one_attempt() -> None:
    handler = app.registry.get("double")
    assert handler is not None
    with App("memory:") as memory:
        async with AsyncClient(memory.dialer()) as client, working(memory.dialer()):
            task_id = await client.enqueue(Task.build("double").args("text").task())
            (outcome,) = await ends(client, [task_id])

    assert outcome.reason is DeadReason.REJECTED
    assert outcome.failure is not None
    assert outcome.failure.type == "InvalidArguments"
    assert "text" not in outcome.failure.traceback


async def test_a_handler_that_blocks_the_loop_is_named_and_loses_no_lease(caplog: pytest.LogCaptureFixture) -> None:
    broker = EmbeddedBroker(BrokerSettings(store="memory", heartbeat_ms=200, lease_ms=1_000))
    dialer = _MemoryDialer(broker)
    async with AsyncClient(dialer) as client, working(dialer):
        task_id = await client.enqueue(task("block", 2.5))
        (outcome,) = await ends(client, [task_id])
    broker.close()

    assert (outcome.state, outcome.attempts, outcome.losses) == (TaskState.COMPLETED, 0, 0)
    assert "task block has kept the event loop from turning" in caplog.text


async def test_results_and_running_tasks_survive_a_restart_of_the_broker() -> None:
    broker = RestartableBroker()
    await broker.start()
    async with working(broker.dialer, concurrency=200):
        async with AsyncClient(broker.dialer) as client:
            ids = await client.enqueue_many([task("pause", 0.3 + (i % 10) / 10) for i in range(100)])
            await asyncio.sleep(0.5)
        await broker.stop()
        await asyncio.sleep(0.5)  # some end now, with nobody to tell
        await broker.start()
        async with AsyncClient(broker.dialer) as client:
            outcomes = await ends(client, ids)
    await broker.stop()

    assert [outcome.state for outcome in outcomes] == [TaskState.COMPLETED] * 100
    assert [(outcome.attempts, outcome.losses) for outcome in outcomes] == [(0, 0)] * 100


async def test_a_worker_that_leaves_hands_on_what_it_had_not_started() -> None:
    with App("memory:") as memory:
        async with AsyncClient(memory.dialer()) as client:
            async with working(memory.dialer(), concurrency=1):
                ids = await client.enqueue_many([task("pause", 0.5), *(task("double", i) for i in range(5))])
                await asyncio.sleep(0.2)
            states = [view.state for view in await client.get(ids) if view is not None]
            async with working(memory.dialer()):
                outcomes = await ends(client, ids)

    assert states == [TaskState.COMPLETED] + [TaskState.READY] * 5
    assert [(outcome.state, outcome.attempts) for outcome in outcomes] == [(TaskState.COMPLETED, 0)] * 6


async def test_a_handler_that_kills_its_worker_in_its_first_step_ends_in_the_dead_letter() -> None:
    broker = RestartableBroker(heartbeat_ms=200, lease_ms=500)
    await broker.start()
    async with AsyncClient(broker.dialer) as client:
        ids = await client.enqueue_many([task("exit_in_the_first_step")])
        ending = asyncio.create_task(ends(client, ids))
        statuses = [await worker_process(broker.dialer) for _ in range(2)]
        (outcome,) = await ending
    await broker.stop()

    assert statuses == [3, 3]
    assert (outcome.reason, outcome.losses, outcome.attempts) == (DeadReason.LOSSES, 2, 0)


async def test_a_burst_leaves_empty_queues_and_returns() -> None:
    with App("memory:") as memory:
        async with AsyncClient(memory.dialer()) as client:
            ids = await client.enqueue_many([task("double", i) for i in range(2_000)])
            worker = Worker(app.registry, memory.dialer(), queues=[("default", 1)], burst=True)
            async with asyncio.timeout(PATIENCE_S):
                await worker.run()
            views = await client.get(ids)

    assert {view.state for view in views if view is not None} == {TaskState.COMPLETED}


async def test_payloads_of_the_largest_size_cost_a_worker_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    broker = RestartableBroker()
    await broker.start()
    with App("memory:") as memory:
        for dialer in (memory.dialer(), broker.dialer):
            async with AsyncClient(dialer) as client:
                ids = await client.enqueue_many([task("measure", "x" * 250_000) for _ in range(200)])
                async with working(dialer, concurrency=400):
                    outcomes = await ends(client, ids)

            assert [outcome.losses for outcome in outcomes if outcome.state is TaskState.COMPLETED] == [0] * 200
    await broker.stop()
    assert "ended" not in caplog.text


class _MemoryDialer:
    """The way to an embedded broker with settings of its own."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        ours = self._broker.connect()
        ours.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=ours)
        return transport

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        return self._broker.connect()
