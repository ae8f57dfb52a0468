"""Declared tasks against the real broker inside this process: from a call to its result."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.app.wire_worker import WireWorker
from tq.app.app import App
from tq.app.context import current_task
from tq.core.errors import InvalidArguments, NotSerializable, UsageError
from tq.core.lifecycle import TaskState


@dataclass
class Letter:
    to: str
    body: str


@pytest.fixture
def app() -> Iterator[App]:
    with App("memory:") as app:
        yield app


def test_a_call_goes_to_a_worker_and_its_result_comes_back(app: App) -> None:
    @app.task
    def write(to: str, body: str = "hi") -> Letter:
        return Letter(to, body)

    handle = write.enqueue("a@b.c")
    with WireWorker(app) as worker:
        worker.serve()

    assert handle.result(timeout=5) == Letter("a@b.c", "hi")
    assert handle.status().state is TaskState.COMPLETED


def test_a_coroutine_does_all_of_it_too(app: App) -> None:
    @app.task(queue="mail")
    async def write(to: str, body: str = "hi") -> Letter:
        return Letter(to, body)

    def serve() -> None:
        with WireWorker(app, "mail") as worker:
            worker.serve(5)

    async def main() -> list[Any]:
        worker = asyncio.create_task(asyncio.to_thread(serve))
        one = await write.aenqueue("one")
        many = await write.aenqueue_many([("two",), {"to": "three", "body": "ho"}])
        seen = [(await handle.aresult(timeout=5)) async for handle in app.aresults(many, timeout=5)]
        results = [await one, *seen, await write.acall("four"), await (await write.using(timeout=5).aenqueue("five"))]
        states = {(await handle.astatus()).state for handle in (one, *many)}
        await worker
        return [sorted(letter.to for letter in results), states]

    tos, states = asyncio.run(main())

    assert tos == ["five", "four", "one", "three", "two"]
    assert states == {TaskState.COMPLETED}


def test_calling_the_task_calls_the_function_and_enqueues_nothing(app: App) -> None:
    @app.task
    async def double(x: int) -> int:
        return 2 * x

    assert asyncio.run(double(2)) == 4
    assert app.client.queues() == []


def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(app: App) -> None:
    @app.task(name="mail.send")
    def send(to: str, body: str) -> None: ...

    wrong: Any = send
    with pytest.raises(InvalidArguments, match=r"task 'mail.send': argument 'body' \(str\): expected str, got int"):
        wrong.enqueue("a@b.c", 3)
    with pytest.raises(InvalidArguments, match="missing a required argument: 'body'"):
        wrong.enqueue_many([("a", "b"), ("c",)])
    with pytest.raises(NotSerializable, match="argument 'body', of type object"):
        wrong.enqueue("a", object())

    assert app.client.queues() == []


@pytest.mark.parametrize("call", ["a@b.c", 3, None])
def test_a_call_of_a_batch_must_be_a_tuple_or_a_mapping(app: App, call: Any) -> None:
    @app.task
    def send(to: str) -> None: ...

    with pytest.raises(InvalidArguments, match="call number 1 of a batch must be a tuple"):
        send.enqueue_many([("a",), call])


def test_options_go_with_the_task(app: App) -> None:
    @app.task(queue="slow", priority="low")
    def send(to: str) -> None: ...

    handle = send.using(queue="fast", priority=250, timeout=5).enqueue("a")
    view = handle.status()

    assert (view.queue, view.priority, view.timeout_ms) == ("fast", 250, 5_000)


def test_a_call_can_wait_for_its_result(app: App) -> None:
    @app.task(codec="json")
    def double(x: int) -> int:
        return 2 * x

    with WireWorker(app) as worker:
        serving = threading.Thread(target=worker.serve)
        serving.start()
        result = double.call(4)
        serving.join()

    assert result == 8


def test_a_handler_knows_which_task_it_runs(app: App) -> None:
    @app.task
    def who() -> str:
        return current_task().id

    handle = who.enqueue()
    with WireWorker(app) as worker:
        worker.serve()

    assert handle.result() == handle.id


def test_a_handle_by_id_reads_the_result_as_the_task_does(app: App) -> None:
    @app.task
    def write(to: str) -> Letter:
        return Letter(to, "hi")

    sent = write.enqueue("a")
    with WireWorker(app) as worker:
        worker.serve()

    assert write.handle(sent.id).result() == Letter("a", "hi")
    assert app.handle(sent.id).result() == {"to": "a", "body": "hi"}


def test_coroutine_methods_outside_a_loop_say_which_to_use(app: App) -> None:
    @app.task
    def send() -> None: ...

    step = send.aenqueue()
    with pytest.raises(UsageError, match="outside coroutines use the method without the a"):
        step.send(None)


def test_the_options_of_a_declared_task_cannot_be_assigned(app: App) -> None:
    @app.task(queue="mail")
    def send() -> None: ...

    with pytest.raises(AttributeError):
        send.spec = send.using(queue="other").spec  # type: ignore[misc]

    assert send.spec.queue == "mail"
