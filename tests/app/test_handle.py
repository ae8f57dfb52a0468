"""Handles: waiting for a task, looking at it, withdrawing it, and how bad ends are told."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.wire_worker import WireWorker
from tq.app.app import App
from tq.app.handle import Handle
from tq.client import ResultTimeout
from tq.core.errors import InvalidArgument, TaskNotFound, UsageError
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import Reject, TaskCancelled, TaskDead
from tq.core.retry import RetryPolicy
from tq.core.task import Task

UNKNOWN = "018f4e2c-0000-7000-8000-000000000000"


@pytest.fixture
def app() -> Iterator[App]:
    with App("memory:") as app:
        yield app


def test_a_failure_is_told_with_its_type_message_and_traceback(app: App) -> None:
    @app.task(retry=RetryPolicy(max_attempts=1))
    def divide(a: int, b: int) -> float:
        return a / b

    handle = divide.enqueue(1, 0)
    with WireWorker(app) as worker:
        worker.serve()

    with pytest.raises(TaskDead) as caught:
        handle.result(timeout=5)
    assert caught.value.outcome.reason is DeadReason.ATTEMPTS
    text = str(caught.value)
    assert text.startswith(f"task {handle.id} is in the dead letter (attempts; attempts 1, losses 0): ")
    assert "ZeroDivisionError: division by zero" in text
    assert "return a / b" in text


def test_a_rejected_task_is_told_as_such(app: App) -> None:
    @app.task
    def refuse() -> None:
        raise Reject("no such customer")

    handle = refuse.enqueue()
    with WireWorker(app) as worker:
        worker.serve()

    with pytest.raises(TaskDead, match=r"\(rejected; .*Reject: no such customer"):
        asyncio.run(handle.aresult(timeout=5))


def test_a_result_that_does_not_come_in_time_is_a_timeout_and_may_come_later(app: App) -> None:
    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    handle = add.enqueue(1, 2)
    with pytest.raises(ResultTimeout, match=handle.id):
        handle.result(timeout=0)
    with WireWorker(app) as worker:
        worker.serve()

    assert handle.result() == 3


def test_a_queued_task_can_be_withdrawn(app: App) -> None:
    @app.task
    def send() -> None: ...

    one, two = send.enqueue_many([(), ()])
    withdrawn = one.cancel(), asyncio.run(two.acancel())

    assert withdrawn == (True, True)
    with pytest.raises(TaskCancelled, match=f"task {one.id} was cancelled, or purged with its queue, before it ran"):
        one.result(timeout=5)
    assert two.status().state is TaskState.CANCELLED


def test_a_task_that_has_ended_can_no_longer_be_withdrawn(app: App) -> None:
    @app.task
    def send() -> None: ...

    handle = send.enqueue()
    with WireWorker(app) as worker:
        worker.serve()

    assert handle.cancel() is False


def test_a_task_that_nobody_knows_is_not_found(app: App) -> None:
    handle = app.handle(UNKNOWN)

    for ask in (handle.status, handle.cancel, handle.result):
        with pytest.raises(TaskNotFound, match=UNKNOWN):
            ask()


def test_a_result_that_is_not_kept_reaches_nobody(app: App) -> None:
    @app.task(result_ttl=0)
    def count() -> int:
        return 3

    def serve() -> None:
        with WireWorker(app) as worker:
            worker.serve()

    async def main() -> int:
        handle = await count.aenqueue()
        waiting = asyncio.create_task(handle.aresult(timeout=5))
        # Answered after the broker has been told that we wait, which the first step of the task does.
        for _ in range(2):
            await handle.astatus()
        await asyncio.to_thread(serve)
        with pytest.raises(TaskNotFound):
            await app.handle(handle.id).aresult(timeout=5)
        return await waiting

    assert asyncio.run(main()) is None


def test_a_result_of_another_type_than_annotated_is_the_handlers_fault(app: App) -> None:
    @app.task(name="count")
    def count() -> int:
        return "three"  # type: ignore[return-value]  # the mistake

    handle = count.enqueue()
    with WireWorker(app) as worker:
        worker.serve()

    with pytest.raises(UsageError, match="task 'count' returned what its annotation int does not allow"):
        handle.result(timeout=5)


def test_an_outcome_is_asked_for_once(app: App) -> None:
    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    handle = add.enqueue(1, 2)
    with WireWorker(app) as worker:
        worker.serve()
    first = handle.result()
    app.close()

    assert handle.result() == first == 3


def test_results_come_as_tasks_end_failed_ones_too(app: App) -> None:
    @app.task(retry=RetryPolicy(max_attempts=1))
    def invert(x: int) -> float:
        return 1 / x

    handles = invert.enqueue_many([(2,), (0,), (1,)])
    results: list[float | None] = []
    with WireWorker(app) as worker:
        worker.serve(3)
        for handle in app.results([*handles, handles[0]], timeout=5):
            try:
                results.append(handle.result(timeout=0))
            except TaskDead:
                results.append(None)

    assert sorted(results, key=str) == [0.5, 0.5, 1.0, None]


def test_a_task_can_be_sent_by_its_name_alone(app: App) -> None:
    @app.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    one = app.enqueue(Task.build("add").args(1, b=2).task())
    many = app.enqueue_many([Task.build("add").args(2, 2).task(), Task.build("add").args(3, 3).task()])
    another = asyncio.run(app.aenqueue(Task.build("add").args(4, 4).task()))
    more = asyncio.run(app.aenqueue_many([Task.build("add").args(5, 5).task()]))
    with WireWorker(app) as worker:
        worker.serve(5)

    assert [handle.result(timeout=5) for handle in (one, *many, another, *more)] == [3, 4, 6, 8, 10]


def test_handles_of_one_task_are_equal(app: App) -> None:
    one, other = app.handle(UNKNOWN), app.handle(UNKNOWN.upper())

    assert one == other
    assert len({one, other}) == 1
    assert one != UNKNOWN
    assert isinstance(one, Handle)


@pytest.mark.parametrize("timeout", ["1", float("nan")])
async def test_a_timeout_that_is_none_is_refused_and_the_connection_goes_on(app: App, timeout: Any) -> None:
    handle = app.enqueue(Task.build("t").task())
    ahandle = await app.aenqueue(Task.build("t").task())

    with pytest.raises(UsageError, match="a timeout is a number of seconds, or None"):
        handle.result(timeout)
    with pytest.raises(UsageError, match="a timeout is a number of seconds, or None"):
        await ahandle.aresult(timeout)
    with pytest.raises(UsageError, match="a timeout is a number of seconds, or None"):
        next(app.results([handle], timeout))

    assert app.client.stats().connections == 2


async def test_what_a_broker_could_not_read_does_not_cost_the_connection(app: App) -> None:
    bad: Any = "018f4e2c-0000-7000-8000-000000000000"
    for ask in (app.client.get, app.client.cancel):
        with pytest.raises(InvalidArgument, match=r"got str in ids\[0\]"):
            ask([bad])
    with pytest.raises(UsageError, match="a task id is 16 bytes"):
        app.client.wait(bad)
    with pytest.raises(UsageError, match="a task id is 16 bytes"):
        await app.async_client.wait(bad)
    with pytest.raises(InvalidArgument, match="in limit"):
        list(app.client.list_tasks(TaskState.READY, limit=2.5))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="text must be what UTF-8 can encode"):
        app.client.queues("a\udcff")
    await app.async_client.ping()

    assert app.client.stats().connections == 2
