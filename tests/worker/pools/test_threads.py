"""The thread pool: as many threads as run at a time; one that is given up keeps its seat."""

import asyncio
import operator
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from tests.worker.pools.ends import Ends, running
from tests.worker.scripted import registry, soft
from tq.app.context import SoftTimeout, TaskContext
from tq.app.middleware import Middleware
from tq.worker.assignment import Assignment, Failed, Stage, Stop
from tq.worker.executor import Executor
from tq.worker.middleware import Chain
from tq.worker.pools.seats import Seats
from tq.worker.pools.threads import ThreadPool, _raise_in


class Pool:
    """A started pool and what it reports."""

    def __init__(self, functions: dict[str, Callable[..., object]], concurrency: int) -> None:
        self.executor = Executor(registry(**functions), "w")
        self.pool = ThreadPool(self.executor, Seats(concurrency))
        self.ends = Ends()

    def run(self, name: str, *args: object) -> Assignment:
        work = running(self.executor, name, *args)
        self.pool.run(work)
        return work

    async def result(self, work: Assignment) -> object:
        outcome = await self.ends.of(work)
        assert isinstance(outcome, bytes)
        return msgspec.msgpack.decode(outcome)


@asynccontextmanager
async def pool(concurrency: int = 4, **functions: Callable[..., object]) -> AsyncIterator[Pool]:
    made = Pool(functions, concurrency)
    await made.pool.start(made.ends)
    try:
        yield made
    finally:
        await made.pool.stop()


def double(x: int) -> int:
    return 2 * x


async def double_later(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


async def test_plain_and_asynchronous_handlers_both_run() -> None:
    async with pool(double=double, double_later=double_later) as it:
        assert await it.result(it.run("double", 4)) == 8
        assert await it.result(it.run("double_later", 5)) == 10


async def test_outcomes_arrive_on_the_loop() -> None:
    async with pool(double=double) as it:
        arrived: list[int] = []
        it.ends.on_end = lambda: arrived.append(threading.get_ident())

        await it.result(it.run("double", 4))

        assert arrived == [threading.get_ident()]


async def test_threads_are_started_as_they_are_needed_and_used_again() -> None:
    async with pool(double=double) as it:
        for _ in range(10):
            await it.result(it.run("double", 1))

        assert len(it.pool._threads) == 1


async def test_tasks_at_the_same_time_have_a_thread_each() -> None:
    together = threading.Barrier(3)

    def meet() -> int:
        return together.wait(10)

    async with pool(meet=meet) as it:
        works = [it.run("meet") for _ in range(3)]

        assert {await it.result(work) for work in works} == {0, 1, 2}


async def test_the_thread_of_an_abandoned_task_keeps_its_seat_until_its_handler_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door, inside = threading.Event(), threading.Event()

    def hang() -> str:
        inside.set()
        door.wait(10)
        return "late"

    async with pool(2, hang=hang, double=double) as it:
        hanging = it.run("hang")
        await asyncio.to_thread(inside.wait, 10)

        patience = it.pool.interrupt(hanging)
        it.pool.abandon(hanging)
        stuck, seats = it.pool.stuck, it.pool.seats
        result = await it.result(it.run("double", 4))
        door.set()
        await it.ends.until(lambda: it.pool.seats == 2)
        again = await it.result(it.run("double", 5))

        assert (patience, stuck, seats) == (0, ["hang"], 1)
        assert (result, again) == (8, 10)
        assert [work.plan.name for work, _ in it.ends.outcomes] == ["double", "double"]
        assert (it.pool._busy, len(it.pool._threads), it.pool.stuck) == (0, 2, [])
    assert "task hang" in caplog.text
    assert "keeps 1 of 2 seats until the handler returns, 1 are left" in caplog.text


async def test_a_task_that_ended_while_the_loop_was_busy_is_not_taken_for_one_that_hangs() -> None:
    async with pool(double=double) as it:
        work = it.run("double", 4)
        while not it.pool._outbox:  # the loop does not turn here: the outcome waits for it
            pass

        it.pool.interrupt(work)

        assert [ended for ended, _ in it.ends.outcomes] == [work]


async def test_a_task_given_up_before_a_thread_came_to_it_is_not_run() -> None:
    ran: list[int] = []

    def work() -> None:
        ran.append(1)

    async with pool(1, work=work, double=double) as it:
        gone = running(it.executor, "work")
        gone.stage = Stage.GONE
        it.pool.run(gone)

        await it.ends.of(gone)

        assert ran == []


async def test_a_handler_that_outlives_the_loop_ends_without_a_sound() -> None:
    door, inside = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        door.wait(10)

    made = Pool({"hang": hang}, 1)
    loop = asyncio.new_event_loop()

    async def leave() -> threading.Thread:
        await made.pool.start(made.ends)
        work = made.run("hang")
        await asyncio.to_thread(inside.wait, 10)
        thread = work.run_by
        assert isinstance(thread, threading.Thread)
        made.pool.abandon(work)
        await made.pool.stop()
        await loop.shutdown_default_executor()
        return thread

    def live() -> threading.Thread:
        try:
            return loop.run_until_complete(leave())
        finally:
            loop.close()

    thread = await asyncio.to_thread(live)
    door.set()
    await asyncio.to_thread(thread.join, 10)

    assert not thread.is_alive()


async def until_inside(inside: threading.Event) -> None:
    assert await asyncio.to_thread(inside.wait, 10)


async def test_a_plain_handler_is_reminded_between_two_steps_and_may_go_on() -> None:
    inside = threading.Event()

    @soft(1)
    def work() -> str:
        try:
            inside.set()
            while True:
                pass
        except SoftTimeout:
            return "in order"

    async with pool(1, work=work, double=double) as it:
        reminded = it.run("work")
        await until_inside(inside)

        assert it.pool.remind(reminded)

        assert await it.result(reminded) == "in order"
        assert await it.result(it.run("double", 4)) == 8


async def test_an_asynchronous_handler_in_a_thread_is_reminded_too() -> None:
    inside = threading.Event()

    @soft(2)
    async def work() -> None:
        inside.set()
        await asyncio.sleep(60)

    async with pool(1, work=work, double_later=double_later) as it:
        reminded = it.run("work")
        await until_inside(inside)

        assert it.pool.remind(reminded)
        outcome = await it.ends.of(reminded)

        assert isinstance(outcome, Failed)
        assert (outcome.failure.type, outcome.failure.message) == (
            "SoftTimeout", "it ran longer than its soft timeout of 2 s",
        )  # fmt: skip
        assert await it.result(it.run("double_later", 4)) == 8


async def test_a_reminder_that_comes_too_late_reaches_nobody() -> None:
    async with pool(1, double=double) as it:
        ended = it.run("double", 4)
        await it.result(ended)
        thread = next(iter(it.pool._threads))

        ended.run_by = thread
        assert not it.pool.remind(ended)

        assert [await it.result(it.run("double", number)) for number in range(100)] == [2 * n for n in range(100)]


async def test_reminders_at_any_instant_hit_their_own_task_or_nobody_and_what_has_returned_is_kept() -> None:
    returned: list[object] = [None]

    @soft(1)
    def work(number: int) -> int:
        value = sum(range(200))
        # No step of the interpreter between this and the return lets an exception in.
        returned[0] = number
        return value

    async with pool(1, work=work, double=double) as it:
        for number in range(300):
            raced = it.run("work", number)
            while not (it.pool.remind(raced) or it.pool._outbox):
                pass
            outcome = await it.ends.of(raced)
            if returned[0] == number:
                assert isinstance(outcome, bytes)
            else:
                assert isinstance(outcome, Failed)
                assert outcome.failure.type == "SoftTimeout"
            assert await it.result(it.run("double", 4)) == 8


async def test_a_reminder_after_the_handler_has_returned_comes_too_late_for_its_middleware_too() -> None:
    inside, door = threading.Event(), threading.Event()

    class Slow(Middleware):
        def after(self, context: TaskContext, failure: object) -> None:
            inside.set()
            door.wait(20)

    made = Pool({"double": soft(1)(lambda x: 2 * x)}, 1)
    made.executor._chain = Chain([Slow()])
    await made.pool.start(made.ends)
    late = made.run("double", 4)
    await until_inside(inside)

    was_reminded = made.pool.remind(late)
    door.set()
    result = await made.result(late)
    await made.pool.stop()

    assert (was_reminded, result) == (False, 8)


async def test_an_asynchronous_handler_in_a_thread_is_cancelled_and_its_seat_is_free_again() -> None:
    inside, tidied = threading.Event(), threading.Event()

    async def work() -> None:
        inside.set()
        try:
            await asyncio.sleep(60)
        finally:
            tidied.set()

    async with pool(1, work=work, double_later=double_later) as it:
        late = it.run("work")
        await until_inside(inside)

        late.stop = Stop.TIMEOUT
        patience = it.pool.interrupt(late)
        outcome = await it.ends.of(late)

        assert patience > 0
        assert isinstance(outcome, Failed)
        assert outcome.failure.type == "TaskTimeout"
        assert "await asyncio.sleep(60)" in outcome.failure.traceback
        assert tidied.is_set()
        assert (it.pool.seats, it.pool.stuck) == (1, [])
        assert await it.result(it.run("double_later", 4)) == 8


async def test_a_coroutine_that_is_to_be_cancelled_before_it_has_begun_is_cancelled_then() -> None:
    inside, door = threading.Event(), threading.Event()

    def wait_at_the_door(value: int) -> int:
        inside.set()
        door.wait(20)
        return value

    class Slow(Middleware):
        def before(self, context: TaskContext) -> None:
            wait_at_the_door(1)

    async def work() -> None:
        await asyncio.sleep(60)

    made = Pool({"work": work}, 1)
    made.executor._chain = Chain([Slow()])
    await made.pool.start(made.ends)
    late = made.run("work")
    await until_inside(inside)

    late.stop = Stop.TIMEOUT
    assert made.pool.interrupt(late) > 0
    door.set()
    outcome = await made.ends.of(late)
    await made.pool.stop()

    assert isinstance(outcome, Failed)
    assert outcome.failure.type == "TaskTimeout"


async def test_a_cancellation_that_comes_too_late_reaches_nobody() -> None:
    async with pool(1, double_later=double_later) as it:
        ended = it.run("double_later", 4)
        await it.result(ended)
        ended.run_by = next(iter(it.pool._threads))

        it.pool.interrupt(ended)

        assert [await it.result(it.run("double_later", number)) for number in range(50)] == [2 * n for n in range(50)]


@pytest.mark.parametrize("is_withdrawn", [True, False])
def test_an_exception_raised_in_a_thread_can_be_withdrawn_while_it_waits(is_withdrawn: bool) -> None:
    inside, door = threading.Lock(), threading.Lock()
    ends: list[str] = []

    def wait() -> None:
        try:
            # One call in C, where no exception can be raised: it is pending from the first lock to the second.
            calls: list[Callable[[], object]] = [inside.release, door.acquire]
            list(map(operator.call, calls))
            ends.append("through the door")
        except SoftTimeout:
            ends.append("reminded")

    inside.acquire()
    door.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    inside.acquire(timeout=20)
    _raise_in(thread.ident, SoftTimeout)
    if is_withdrawn:
        _raise_in(thread.ident, None)
    door.release()
    thread.join()

    assert ends == (["through the door"] if is_withdrawn else ["reminded"])
