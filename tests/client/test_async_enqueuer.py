"""Single enqueues of one turn: one frame for all, each caller's own outcome."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from tests.client.scripted import LIMITS, ScriptedBroker, refuse
from tq.client.async_client import AsyncClient
from tq.client.async_enqueuer import AsyncEnqueuer
from tq.client.batches import FrameCutter
from tq.client.dialer import TcpDialer
from tq.client.ids import ClientIds
from tq.core.errors import (
    BatchTooLarge,
    BrokerStoreFull,
    DuplicateTask,
    InvalidArgument,
    OutcomeUnknown,
    RequestTimeout,
    TooManyQueues,
)
from tq.core.ids import IdMaker, TaskId
from tq.core.task import NewTask, Task, TaskSpec
from tq.protocol.messages import Enqueue, Enqueued, Type

SPEC = TaskSpec("a")
new_ids = IdMaker(lambda: 1_700_000_000_000, os.urandom)


def new_enqueuer(send: Callable[[Enqueue], Awaitable[Enqueued]]) -> AsyncEnqueuer:
    return AsyncEnqueuer(FrameCutter(ClientIds(lambda: 1_000, os.urandom)), send)


async def test_callers_of_one_turn_share_a_frame_but_for_the_first_who_waits_for_nobody(
    scripted: ScriptedBroker,
) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        await client.ping()
        task_ids = await asyncio.gather(*(client.enqueue(Task(SPEC, str(n).encode())) for n in range(100)))

    frames = scripted.seen(Type.ENQUEUE)
    rows = [NewTask(task_id, 0, str(n).encode()) for n, task_id in enumerate(task_ids)]
    assert [frame.tasks for frame in frames if isinstance(frame, Enqueue)] == [rows[:1], rows[1:]]


async def test_a_turn_of_very_many_callers_makes_several_frames(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        await client.ping()
        task_ids = await asyncio.gather(*(client.enqueue(Task(SPEC, b"")) for _ in range(2_500)))

    assert len(scripted.seen(Type.ENQUEUE)) == 1 + 3
    assert list(scripted.tasks) == task_ids


async def test_a_refused_task_fails_its_own_caller_alone(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        known = await client.enqueue(Task(SPEC, b""))

        outcomes = await asyncio.gather(
            client.enqueue(Task(SPEC, b"1")),
            client.enqueue(Task(SPEC, b"2", known)),
            client.enqueue(Task(TaskSpec(""), b"3")),
            client.enqueue(Task(SPEC, b"4")),
            return_exceptions=True,
        )

    assert [type(outcome) for outcome in outcomes] == [bytes, DuplicateTask, InvalidArgument, bytes]
    assert len(scripted.tasks) == 3


async def test_a_frame_refused_for_one_task_is_taken_apart() -> None:
    sent: list[list[bytes]] = []

    async def send(frame: Enqueue) -> Enqueued:
        payloads = [task.payload for task in frame.tasks]
        sent.append(payloads)
        await asyncio.sleep(0)
        if b"bad" in payloads:
            raise TooManyQueues("10,000 queues")
        return Enqueued()

    enqueuer = new_enqueuer(send)

    outcomes = await asyncio.gather(
        *(enqueuer.enqueue(Task(SPEC, payload), LIMITS) for payload in (b"first", b"good", b"bad", b"fine")),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [bytes, bytes, TooManyQueues, bytes]
    assert sent == [[b"first"], [b"good", b"bad", b"fine"], [b"good"], [b"bad"], [b"fine"]]


@pytest.mark.parametrize("error", [BrokerStoreFull("full"), OutcomeUnknown("too old"), RequestTimeout("late")])
async def test_a_failure_that_is_nobodys_fault_is_everybodys(error: Exception) -> None:
    async def send(frame: Enqueue) -> Enqueued:
        await asyncio.sleep(0)
        raise error

    enqueuer = new_enqueuer(send)

    outcomes = await asyncio.gather(
        *(enqueuer.enqueue(Task(SPEC, b""), LIMITS) for _ in range(3)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [type(error)] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3


async def test_a_caller_that_goes_away_leaves_the_others_alone(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        await client.ping()
        ahead, first, second = (asyncio.ensure_future(client.enqueue(Task(SPEC, b""))) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()

        task_id = await second
        await ahead

    assert task_id in scripted.tasks
    assert first.cancelled()


async def test_closing_waits_for_what_is_on_its_way() -> None:
    answer: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()

    async def send(frame: Enqueue) -> Enqueued:
        return await answer

    enqueuer = new_enqueuer(send)
    enqueuing = [asyncio.ensure_future(enqueuer.enqueue(Task(SPEC, b""), LIMITS)) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)

    closing = asyncio.ensure_future(enqueuer.close())
    await asyncio.sleep(0)
    was_done = closing.done()
    answer.set_result(Enqueued())
    await closing

    assert not was_done
    assert len(set(await asyncio.gather(*enqueuing))) == 3


async def test_a_caller_that_waited_for_others_in_vain_sends_its_task_itself(scripted: ScriptedBroker) -> None:
    mine = new_ids.make()

    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        await client.ping()
        ahead, same, gone = (
            asyncio.ensure_future(client.enqueue(task))
            for task in (Task(SPEC, b"x", TaskId(mine)), Task(SPEC, b"x", TaskId(mine)), Task(SPEC, b"gone"))
        )
        await asyncio.sleep(0)
        gone.cancel()
        assert await ahead == mine
        with pytest.raises(DuplicateTask):
            await same
        await client.ping()

    assert list(scripted.tasks) == [mine]


async def test_a_single_caller_is_told_of_a_whole_refusal(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, refuse(BatchTooLarge("too much")))

    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        with pytest.raises(BatchTooLarge):
            await client.enqueue(Task(SPEC, b""))

    assert len(scripted.seen(Type.ENQUEUE)) == 1
