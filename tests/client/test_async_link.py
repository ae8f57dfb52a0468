"""The connections of a loop, one after the other: made once for all, kept apart from other loops."""

import asyncio

import pytest

from tests.client.scripted import ScriptedBroker, drop, silence
from tq.client.async_client import AsyncClient
from tq.client.dialer import TcpDialer
from tq.core.errors import BrokerUnavailable, UsageError
from tq.core.task import Task, TaskSpec
from tq.protocol import messages as m
from tq.protocol.messages import Type


async def test_callers_that_come_together_share_one_connection(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        await asyncio.gather(*(client.ping() for _ in range(50)))

    assert scripted.connections == 1


async def test_callers_that_wait_for_an_absent_broker_are_all_told(scripted: ScriptedBroker) -> None:
    scripted.stop()
    client = AsyncClient(TcpDialer.of(scripted.url), connect_timeout_s=0.1)

    outcomes = await asyncio.gather(*(client.ping() for _ in range(20)), return_exceptions=True)
    await client.close()

    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable] * 20
    assert len({id(outcome) for outcome in outcomes}) == 20


async def test_a_caller_in_a_hurry_does_not_wait_as_long_as_the_others(scripted: ScriptedBroker) -> None:
    scripted.next(Type.HELLO, silence)
    client = AsyncClient(TcpDialer.of(scripted.url), connect_timeout_s=60.0, request_timeout_s=0.1)

    with pytest.raises(BrokerUnavailable, match="within the time given"):
        await client.ping()
    await client.close()


async def test_a_caller_that_gives_up_connecting_leaves_it_to_the_others(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        first, second = asyncio.ensure_future(client.ping()), asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        first.cancel()

        assert isinstance(await second, m.Pong)

    assert scripted.connections == 1


def test_another_loop_cannot_use_a_client(scripted: ScriptedBroker) -> None:
    client = AsyncClient(TcpDialer.of(scripted.url))

    with asyncio.Runner() as its_own, asyncio.Runner() as another:
        its_own.run(client.ping())
        with pytest.raises(UsageError, match="belongs to the event loop in which it was first used"):
            another.run(client.ping())
        its_own.run(client.close())


async def test_many_callers_survive_many_lost_connections(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, drop, scripted._answer, drop, drop, scripted._answer, drop)

    async def some(client: AsyncClient) -> list[bytes]:
        return [await client.enqueue(Task(TaskSpec("a"), b"")) for _ in range(5)]

    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        made = await asyncio.gather(*(some(client) for _ in range(20)))

    assert {task_id for task_ids in made for task_id in task_ids} == set(scripted.tasks)
    assert len(scripted.tasks) == 100


async def test_closing_ends_what_waits(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence)
    client = AsyncClient(TcpDialer.of(scripted.url))
    task_id = await client.enqueue(Task(TaskSpec("a"), b""))
    waiting = [asyncio.ensure_future(call) for call in (client.ping(), client.wait(task_id))]
    await client.queues()

    await client.close()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UsageError] * 2


async def test_closing_ends_the_dialling_too(scripted: ScriptedBroker) -> None:
    scripted.next(Type.HELLO, silence)
    client = AsyncClient(TcpDialer.of(scripted.url))
    waiting = asyncio.ensure_future(client.ping())
    await asyncio.to_thread(scripted.wait_for, Type.HELLO)

    await client.close()

    with pytest.raises(UsageError, match="closed"):
        await waiting
