"""The worker's life, on a scripted broker: it begins, works, and leaves in good order."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.rig import Gate
from tests.worker.scripted import ScriptedBroker, record, registry
from tq.core.errors import ConfigError, InvalidArgument, UsageError
from tq.core.lease import DeliveryRef
from tq.protocol.messages import Goodbye, Heartbeat, Hello, Ping, Release, Role, Settle, Subscribe, Window
from tq.worker.keeper import LoopKeeper
from tq.worker.state import StateFile, read_state
from tq.worker.worker import Worker


async def quick() -> int:
    return 1


class Run:
    """A worker that runs on a scripted broker."""

    def __init__(self, broker: ScriptedBroker, worker: Worker) -> None:
        self.broker = broker
        self.worker = worker
        self.task = asyncio.create_task(worker.run())

    async def turns(self, number: int = 20) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def end(self) -> None:
        async with asyncio.timeout(20):
            await self.task


def worker_on(
    broker: ScriptedBroker,
    *,
    concurrency: int = 2,
    burst: bool = False,
    drain_timeout_s: float = 10.0,
    **functions: Callable[..., object],
) -> Worker:
    return Worker(
        registry(**functions),
        broker,
        queues=[("default", 1)],
        concurrency=concurrency,
        burst=burst,
        drain_timeout_s=drain_timeout_s,
        name="w",
        draw=lambda: 0.9,
        keeper=LoopKeeper(broker, lambda: 0.9),
    )


async def connected(broker: ScriptedBroker, worker: Worker) -> Run:
    run = Run(broker, worker)
    await broker.next(Window)
    return run


async def at_the_gate(
    broker: ScriptedBroker, gate: Gate, tasks: int = 1, *, concurrency: int = 2, drain_timeout_s: float = 10.0
) -> Run:
    """Return a worker that holds so many tasks, of which the first waits at *gate*."""
    worker = worker_on(broker, concurrency=concurrency, drain_timeout_s=drain_timeout_s, gate=gate.__call__)
    run = await connected(broker, worker)
    broker.deliver(5, *[record("gate")] * tasks)
    await gate.until(lambda gate: gate.entered == 1)
    return run


async def test_a_worker_says_what_it_is_works_and_says_goodbye() -> None:
    broker = ScriptedBroker()
    run = await connected(broker, worker_on(broker, quick=quick, gate=quick))

    broker.deliver(5, record("quick"))
    await broker.next(Settle)
    run.worker.request_stop()
    await run.end()

    hello = next(hello for hello in broker.of(Hello) if hello.role is Role.WORKER)
    assert hello.worker is not None
    assert (hello.worker.name, hello.worker.pool, hello.worker.concurrency) == ("w", "async", 2)
    assert hello.worker.tasks == ["quick", "gate"]
    assert "Python" in hello.worker.version
    assert isinstance(broker.said[-1], Goodbye)


async def test_heartbeats_are_sent_under_the_workers_session() -> None:
    broker = ScriptedBroker()
    run = await connected(broker, worker_on(broker, quick=quick))

    await broker.until(lambda: len(broker.of(Heartbeat)) == 1)
    run.worker.request_stop()
    await run.end()

    worker, keeper = broker.of(Hello)[:2]
    assert (worker.session, worker.secret) == (keeper.session, keeper.secret)


async def test_a_stop_lets_what_runs_end_and_hands_back_the_rest_at_once() -> None:
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate, 2, concurrency=1)

    run.worker.request_stop()
    await broker.until(lambda: broker.of(Release) == [Release([DeliveryRef(5, 1)])])
    is_waiting = not run.task.done()
    gate.open()
    await run.end()

    assert is_waiting
    assert broker.done == {(5, 0): "through"}
    assert gate.cancelled == 0
    assert broker.of(Goodbye)


async def test_what_takes_longer_than_the_drain_is_cancelled_settled_and_tried_again_at_once() -> None:
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate, drain_timeout_s=0.01)

    run.worker.request_stop()
    await run.end()

    assert gate.cancelled == 1
    assert broker.failed[5, 0].failure.type == "WorkerStopped"
    assert broker.failed[5, 0].retry_after_ms == 0
    assert isinstance(broker.said[-1], Goodbye)


async def test_a_second_request_does_not_wait_for_what_runs() -> None:
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate, drain_timeout_s=3_600)

    run.worker.request_stop()
    await broker.until(lambda: broker.of(Window)[-1].tasks == 0)
    run.worker.request_stop()
    await run.end()

    assert broker.failed[5, 0].failure.type == "WorkerStopped"


async def test_a_cancelled_worker_stops_what_runs_hands_back_the_rest_and_leaves() -> None:
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate, 2, concurrency=1)

    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.end()

    assert gate.cancelled == 1
    assert broker.failed[5, 0].failure.type == "WorkerStopped"
    assert broker.of(Release) == [Release([DeliveryRef(5, 1)])]
    assert isinstance(broker.said[-1], Goodbye)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_cancelled_again_waits_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broker, gate = ScriptedBroker(), Gate()
    gate.heeds_cancellation = False
    run = await at_the_gate(broker, gate)

    run.task.cancel()
    await gate.until(lambda gate: gate.cancelled == 1)
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.end()
    gate.open()
    await run.turns()

    assert not broker.of(Goodbye)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_does_not_heed_its_cancellation_is_named_and_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tq.worker.worker._QUICK_S", 0.01)
    broker, gate = ScriptedBroker(), Gate()
    gate.heeds_cancellation = False
    run = await at_the_gate(broker, gate, drain_timeout_s=0.01)

    run.worker.request_stop()
    await run.end()
    gate.open()
    await run.turns()

    assert gate.cancelled == 1
    assert "task gate" in caplog.text
    assert "left behind" in caplog.text


async def test_a_third_request_to_stop_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, gate = ScriptedBroker(), Gate()
    gate.heeds_cancellation = False
    run = await at_the_gate(broker, gate)

    run.worker.request_stop()
    await run.turns()
    run.worker.request_stop()
    await gate.until(lambda gate: gate.cancelled == 1)
    run.worker.request_stop()
    gate.open()
    await run.end()

    assert broker.of(Goodbye)


async def test_a_stop_before_the_broker_is_there_ends_the_worker() -> None:
    broker = ScriptedBroker()
    broker.is_absent = True
    run = Run(broker, worker_on(broker, quick=quick))
    await run.turns()

    run.worker.request_stop()
    await run.end()

    assert broker.said == []


async def test_a_worker_that_leaves_waits_for_a_broker_to_take_what_is_finished() -> None:
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate)

    broker.is_absent = True
    broker.cut()
    gate.open()
    run.worker.request_stop()
    await run.turns()
    is_waiting = not run.task.done()
    broker.is_absent = False
    await run.end()

    assert is_waiting
    assert broker.done == {(5, 0): "through"}


async def test_without_one_it_says_how_many_outcomes_are_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tq.worker.worker._QUICK_S", 0.01)
    broker, gate = ScriptedBroker(), Gate()
    run = await at_the_gate(broker, gate, drain_timeout_s=0.01)

    broker.is_absent = True
    broker.cut()
    gate.open()
    await run.turns()
    run.worker.request_stop()
    await run.end()

    assert "the outcomes of 1 tasks" in caplog.text


async def test_a_burst_ends_when_two_answers_bring_no_task() -> None:
    broker = ScriptedBroker()
    broker.holds.add(Ping)
    run = await connected(broker, worker_on(broker, quick=quick, burst=True))
    assert broker.worker is not None

    await broker.until(lambda: len(broker.of(Ping)) == 1)
    broker.worker.answer_kept()
    await broker.until(lambda: len(broker.of(Ping)) == 2)
    broker.deliver(5, record("quick"))  # it comes before the answer: the queues were not empty
    broker.worker.answer_kept()
    await broker.until(lambda: len(broker.of(Ping)) == 3)
    broker.worker.answer_kept()
    await broker.until(lambda: len(broker.of(Ping)) == 4)
    broker.worker.answer_kept()
    await run.end()

    assert broker.done == {(5, 0): 1}
    assert len(broker.of(Ping)) == 4
    assert broker.of(Goodbye)


async def test_a_burst_waits_for_its_broker_and_goes_on_after_a_lost_connection() -> None:
    broker = ScriptedBroker()
    broker.is_absent = True
    broker.holds.add(Ping)
    run = Run(broker, worker_on(broker, quick=quick, burst=True))
    await run.turns()

    broker.is_absent = False
    await broker.until(lambda: len(broker.of(Ping)) == 1)
    broker.holds.clear()
    broker.cut()
    await run.end()

    assert broker.connections == 2


async def test_a_burst_can_be_stopped() -> None:
    broker = ScriptedBroker()
    broker.holds.add(Ping)
    run = await connected(broker, worker_on(broker, quick=quick, burst=True))

    await broker.until(lambda: len(broker.of(Ping)) == 1)
    broker.holds.clear()
    run.worker.request_stop()
    await run.end()

    assert broker.of(Goodbye)


async def test_queues_that_the_broker_refuses_end_the_worker_with_its_error() -> None:
    broker = ScriptedBroker()
    broker.refuses[Subscribe] = InvalidArgument("a queue has no such name")
    run = Run(broker, worker_on(broker, quick=quick))

    with pytest.raises(InvalidArgument, match="no such name"):
        await run.end()


async def test_a_time_limit_is_kept_by_the_workers_own_clock(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broker, gate = ScriptedBroker(), Gate()
    run = await connected(broker, worker_on(broker, gate=gate.__call__))

    broker.deliver(5, record("gate", timeout_ms=1))
    await broker.until(lambda: (5, 0) in broker.failed)
    run.worker.request_stop()
    await run.end()

    assert broker.failed[5, 0].failure.type == "TaskTimeout"


@pytest.mark.parametrize(
    ("options", "text"),
    [({"pool": "gevent"}, "a pool is one of async, thread, process"), ({"pool": "process"}, "module:name")],
)
def test_what_cannot_work_is_refused_before_it_starts(options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Worker(registry(quick=quick), ScriptedBroker(), queues=[("default", 1)], **options)  # type: ignore[arg-type]


async def test_annotations_that_cannot_be_resolved_are_found_at_the_start() -> None:
    def broken(x: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
        """Never called."""

    with pytest.raises(UsageError, match="Nowhere"):
        Worker(registry(broken=broken), ScriptedBroker(), queues=[("default", 1)])


async def test_the_state_file_tells_of_the_connection_and_goes_with_the_worker(tmp_path: Path) -> None:
    broker, path = ScriptedBroker(), tmp_path / "state.json"
    worker = Worker(
        registry(quick=quick),
        broker,
        queues=[("default", 1)],
        name="w",
        labels={"zone": "eu"},
        state_file=StateFile(path, "w"),
        draw=lambda: 0.9,
        keeper=LoopKeeper(broker, lambda: 0.9),
    )
    at_first = read_state(path).connected

    run = await connected(broker, worker)
    await broker.until(lambda: read_state(path).connected)
    run.worker.request_stop()
    await run.end()

    assert not at_first
    assert not path.exists()
    hello = next(hello for hello in broker.of(Hello) if hello.role is Role.WORKER)
    assert hello.worker is not None
    assert hello.worker.labels == {"zone": "eu"}
