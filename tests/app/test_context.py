"""The context: seen by the task that runs, and by nobody else."""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from tq.app.context import TaskContext, TaskContextFilter, add_task_fields, current_task, enter
from tq.core.errors import UsageError
from tq.core.ids import parse_id


def context(name: str = "mail.send", deadline: float = 0.0) -> TaskContext:
    return TaskContext(
        task_id=parse_id("018f4e2c-0000-7000-8000-000000000000"),
        name=name,
        queue="mail",
        attempt=2,
        losses=0,
        generation=1,
        enqueued_at=1_764_000_000_000,
        deadline=deadline,
        worker="w1",
    )


def test_outside_a_task_there_is_no_context() -> None:
    with pytest.raises(UsageError, match="no task runs here"):
        current_task()


T = TypeVar("T")


def inside(task: TaskContext, handler: Callable[[], T]) -> T:
    """Call *handler* as a worker does: in a context of its own."""

    def call() -> T:
        enter(task)
        return handler()

    return contextvars.copy_context().run(call)


def test_inside_a_task_there_is_its_own_and_afterwards_none() -> None:
    task = context()

    seen = inside(task, current_task)

    assert seen is task
    with pytest.raises(UsageError):
        current_task()


def test_its_id_is_the_text_that_clients_use() -> None:
    assert context().id == "018f4e2c-0000-7000-8000-000000000000"


def test_tasks_side_by_side_see_their_own() -> None:
    async def handler(name: str, others: asyncio.Barrier) -> str:
        enter(context(name))
        await others.wait()
        return current_task().name

    async def main() -> list[str]:
        others = asyncio.Barrier(2)
        return list(await asyncio.gather(handler("one", others), handler("two", others)))

    assert asyncio.run(main()) == ["one", "two"]


def test_a_thread_of_the_handlers_own_sees_it_in_a_copied_context_only() -> None:
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append(current_task().name)
        except UsageError:
            seen.append("none")

    def handler() -> None:
        copied = contextvars.copy_context()
        for target, arguments in ((look, ()), (copied.run, (look,))):
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            thread.join()

    inside(context(), handler)

    assert seen == ["none", "mail.send"]


def test_the_time_left_is_never_negative() -> None:
    now = time.monotonic()

    assert context(deadline=now - 5).remaining() == 0
    assert 3_590 < context(deadline=now + 3_600).remaining() <= 3_600


def test_log_records_carry_the_task(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(TaskContextFilter())
    caplog.handler.setFormatter(
        logging.Formatter("%(task_name)s %(task_id)s %(task_queue)s %(task_attempt)s %(message)s")
    )
    log = logging.getLogger("shop")

    inside(context(), lambda: log.warning("inside"))
    log.warning("outside")

    assert caplog.text == "mail.send 018f4e2c-0000-7000-8000-000000000000 mail 2 inside\n- - - - outside\n"


def test_the_loggers_own_records_carry_it_without_a_filter_and_anywhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.handler.addFilter(TaskContextFilter())
    caplog.handler.setFormatter(logging.Formatter("%(name)s %(task_name)s %(message)s"))
    logger = context().logger

    logger.warning("from a thread of its own")

    assert caplog.text == "mail.send mail.send from a thread of its own\n"


def test_an_entry_of_structlog_carries_the_task_and_keeps_what_it_says_itself() -> None:
    entry = inside(context(), lambda: add_task_fields(None, "info", {"event": "sent", "task_name": "mine"}))

    assert entry == {
        "event": "sent",
        "task_id": "018f4e2c-0000-7000-8000-000000000000",
        "task_name": "mine",
        "task_queue": "mail",
        "task_attempt": 2,
    }
    assert add_task_fields(None, "info", {"event": "outside"}) == {"event": "outside"}
