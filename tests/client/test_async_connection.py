"""One connection of a loop: what waits on it, and what becomes of that."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.client.scripted import ScriptedBroker, drop, refuse, silence
from tq.client.async_client import AsyncClient
from tq.client.async_connection import AsyncConnection
from tq.client.dialer import TcpDialer
from tq.core.errors import ConnectionLost, Overloaded, RequestTimeout
from tq.core.task import Task, TaskSpec
from tq.protocol import messages as m
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Role, Type

HELLO = Hello(MAGIC, VERSIONS.first, Role.CLIENT)
SPEC = TaskSpec("a")


async def connected(scripted: ScriptedBroker) -> AsyncConnection:
    connection = AsyncConnection(HELLO, asyncio.get_running_loop())
    await TcpDialer.of(scripted.url).connect(lambda: connection)
    await connection.opened
    return connection


async def ended(connection: AsyncConnection) -> None:
    connection.abort(ConnectionLost("the test is over"))
    await connection.ended


async def test_answers_find_their_callers(scripted: ScriptedBroker) -> None:
    connection = await connected(scripted)

    pong, queues = connection.call(m.Ping(), None), connection.call(m.ListQueues(), None)

    assert isinstance(await queues, m.Queues)
    assert isinstance(await pong, m.Pong)
    await ended(connection)


async def test_all_that_wait_are_told_of_the_end(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence, drop)
    connection = await connected(scripted)

    outcomes = await asyncio.gather(
        connection.call(m.Ping(), None), connection.call(m.Ping(), None), return_exceptions=True
    )
    await connection.ended

    assert [type(outcome) for outcome in outcomes] == [ConnectionLost] * 2
    assert outcomes[0] is not outcomes[1]
    assert not connection.is_usable


async def test_each_request_has_its_own_deadline(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence, silence, silence)
    connection = await connected(scripted)
    now = asyncio.get_running_loop().time()

    late = connection.call(m.Ping(), now + 60.0)
    third, second = connection.call(m.Ping(), now + 0.04), connection.call(m.Ping(), now + 0.02)
    ends: list[str] = []
    third.add_done_callback(lambda _: ends.append("third"))
    second.add_done_callback(lambda _: ends.append("second"))
    with pytest.raises(RequestTimeout):
        await third

    assert ends == ["second", "third"]
    assert not late.done()
    await ended(connection)


async def test_waits_of_one_turn_are_one_request(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        task_ids = await client.enqueue_many(Task(SPEC, b"") for _ in range(1_500))
        waiting = [asyncio.ensure_future(client.wait(task_id, timeout=10)) for task_id in task_ids]
        again = asyncio.ensure_future(client.wait(task_ids[0], timeout=10))
        await client.ping()
        await client.ping()
        for task_id in task_ids:
            scripted.complete(task_id)

        results = await asyncio.gather(*waiting, again)

    assert [result.id for result in results] == [*task_ids, task_ids[0]]
    assert [len(wait.ids) for wait in scripted.seen(Type.WAIT) if isinstance(wait, m.Wait)] == [1_000, 500]


async def test_a_cancelled_wait_is_withdrawn_unless_others_wait_for_the_same(scripted: ScriptedBroker) -> None:
    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        task_id = await client.enqueue(Task(SPEC, b""))
        first, second = (asyncio.ensure_future(client.wait(task_id)) for _ in range(2))
        await client.ping()

        first.cancel()
        await asyncio.wait([first])
        await client.ping()
        before = scripted.seen(Type.UNWAIT)
        second.cancel()
        await asyncio.wait([second])
        await client.ping()

    assert before == []
    assert scripted.seen(Type.UNWAIT) == [m.Unwait([task_id])]


async def test_a_refused_wait_fails_those_that_asked_together(scripted: ScriptedBroker) -> None:
    scripted.next(Type.WAIT, refuse(Overloaded("too many waits")))

    async with AsyncClient(TcpDialer.of(scripted.url)) as client:
        task_ids = await client.enqueue_many(Task(SPEC, b"") for _ in range(3))
        outcomes = await asyncio.gather(*(client.wait(task_id) for task_id in task_ids), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Overloaded] * 3


async def test_a_request_that_was_sent_before_the_broker_goes_away_gets_its_answer(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence, lambda peer, request: peer.push(m.GoingAway("restart")))
    connection = await connected(scripted)
    first, second = connection.call(m.Ping(), None), connection.call(m.Ping(), None)
    queues = connection.call(m.ListQueues(), None)

    assert isinstance(await queues, m.Queues)

    assert not connection.is_usable
    assert not first.done()
    assert not second.done()
    await ended(connection)


async def test_writers_wait_while_the_transport_holds_enough(scripted: ScriptedBroker) -> None:
    connection = await connected(scripted)
    connection.pause_writing()
    writer = asyncio.ensure_future(connection.writable())
    await asyncio.sleep(0)
    was_done = writer.done()

    connection.resume_writing()
    await writer

    assert not was_done
    assert not connection.is_full
    await ended(connection)


async def test_writers_do_not_wait_for_a_connection_that_has_ended(scripted: ScriptedBroker) -> None:
    connection = await connected(scripted)
    connection.pause_writing()
    writer = asyncio.ensure_future(connection.writable())
    await asyncio.sleep(0)

    await ended(connection)

    await writer


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_it_runs_on_either_loop(scripted: ScriptedBroker, run: Callable[[Awaitable[object]], object]) -> None:
    async def main() -> None:
        async with AsyncClient(TcpDialer.of(scripted.url)) as client:
            task_ids = await client.enqueue_many(Task(SPEC, bytes(1_000)) for _ in range(3_000))
            scripted.complete(task_ids[-1])
            await client.wait(task_ids[-1], timeout=10)

    run(main())

    assert len(scripted.tasks) == 3_000
