"""What `AsyncClient` does, one call after the other; calls at the same time are tested with the links."""

import itertools
import os
import time

import msgspec
import pytest

from tests.client.scripted import CLOCK_MS, Action, ScriptedBroker, drop, refuse, silence, take_and_drop, welcome
from tests.upgrade.wire import QUEUE, WORKER
from tq.client.async_client import AsyncClient
from tq.client.dialer import Dialer, TcpDialer
from tq.client.errors import EnqueueRefused, ResultTimeout
from tq.core.errors import (
    BatchTooLarge,
    BrokerStoreFull,
    BrokerUnavailable,
    ConnectionLost,
    DuplicateTask,
    ErrorCode,
    InvalidArgument,
    Overloaded,
    PayloadTooLarge,
    QueueNotFound,
    RequestTimeout,
    TaskNotFound,
    UnsupportedVersion,
    UsageError,
    broker_error,
)
from tq.core.ids import IdMaker, TaskId, made_at
from tq.core.lifecycle import TaskState
from tq.core.limits import FRAME_TASK_BYTES_MAX
from tq.core.task import Task, TaskSpec
from tq.protocol import messages as m
from tq.protocol.messages import DeadAction, QueueAction, Type

PONG = m.Pong("scripted", CLOCK_MS)
SPEC = TaskSpec("mail.send", "mail")
ids = IdMaker(lambda: CLOCK_MS, os.urandom)


def task(payload: bytes = b"\x92\x90\x80", *, spec: TaskSpec = SPEC, task_id: TaskId | None = None) -> Task:
    return Task(spec, payload, task_id)


def new_id() -> TaskId:
    return TaskId(ids.make())


def new_real_id() -> TaskId:
    """One by the clock of this machine: a real broker refuses those of another time."""
    return TaskId(IdMaker(lambda: time.time_ns() // 1_000_000, os.urandom).make())


def client_of(broker: ScriptedBroker, request_timeout_s: float = 10.0) -> AsyncClient:
    return AsyncClient(TcpDialer.of(broker.url), request_timeout_s=request_timeout_s, connect_timeout_s=5.0)


# ---------------------------------------------------------------------------------------------- connections


async def test_a_client_connects_when_it_is_first_used_and_stays_connected(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        before = scripted.connections

        pongs = [await client.ping() for _ in range(3)]

    assert before == 0
    assert pongs == [PONG] * 3
    assert scripted.connections == 1


async def test_a_request_is_sent_again_when_the_connection_is_lost(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, drop, drop)

    async with client_of(scripted) as client:
        assert await client.ping() == PONG

    assert scripted.connections == 3


async def test_a_broker_that_has_restarted_meanwhile_goes_unnoticed(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        await client.ping()
        scripted.stop()
        scripted.start()

        assert await client.ping() == PONG

    assert scripted.connections == 2


async def test_what_may_not_be_done_twice_is_not_sent_twice(scripted: ScriptedBroker) -> None:
    scripted.next(Type.CONTROL_QUEUE, drop)

    async with client_of(scripted) as client:
        with pytest.raises(ConnectionLost):
            await client.control_queue("mail", QueueAction.PURGE)

    assert len(scripted.seen(Type.CONTROL_QUEUE)) == 1


async def test_an_absent_broker_is_an_error_that_says_what_was_tried(scripted: ScriptedBroker) -> None:
    scripted.stop()
    client = AsyncClient(TcpDialer.of(scripted.url), connect_timeout_s=0.2)

    with pytest.raises(BrokerUnavailable) as caught:
        await client.ping()
    await client.close()

    text = str(caught.value)
    assert text.startswith("no broker within 0.2 s, ")
    assert scripted.url.removeprefix("tq://") + ": Connection refused" in text
    assert "Is tq-broker running?" in text


async def test_a_broker_that_comes_up_in_time_is_found(scripted: ScriptedBroker) -> None:
    # It accepts connections and hangs up on them, as one does that is starting.
    scripted.next(Type.HELLO, drop, drop, refuse(broker_error("going_away", "not ready")))

    async with client_of(scripted) as client:
        assert await client.ping() == PONG

    assert scripted.connections == 4


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(scripted: ScriptedBroker) -> None:
    scripted.next(Type.HELLO, silence)
    client = AsyncClient(TcpDialer.of(scripted.url), connect_timeout_s=0.2)

    with pytest.raises(BrokerUnavailable, match="connected, but not welcomed"):
        await client.ping()
    await client.close()


async def test_a_broker_of_another_version_is_an_error_at_once(scripted: ScriptedBroker) -> None:
    scripted.next(Type.HELLO, refuse(UnsupportedVersion("this broker speaks 2")))

    async with client_of(scripted) as client:
        with pytest.raises(UnsupportedVersion, match="this broker speaks 2"):
            await client.ping()

    assert scripted.connections == 1


async def test_a_broker_that_does_not_answer_in_time_leaves_the_connection_open(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence)

    async with client_of(scripted, request_timeout_s=0.1) as client:
        with pytest.raises(RequestTimeout, match="not answered in time"):
            await client.ping()
        assert await client.ping() == PONG

    assert scripted.connections == 1


async def test_a_client_moves_on_when_the_broker_goes_away(scripted: ScriptedBroker) -> None:
    def answer_and_go(peer: object, request: object) -> None:
        scripted.push_all(m.GoingAway("restart"))
        scripted._answer(peer, request)  # type: ignore[arg-type]

    scripted.next(Type.PING, answer_and_go)

    async with client_of(scripted) as client:
        assert await client.ping() == PONG
        assert await client.ping() == PONG

    assert scripted.connections == 2


async def test_an_overloaded_broker_is_asked_again_when_it_says_when(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, refuse(broker_error("overloaded", "later", 1)), refuse(Overloaded("no idea when")))

    async with client_of(scripted) as client:
        with pytest.raises(Overloaded, match="no idea when"):
            await client.ping()


async def test_a_closed_client_is_of_no_use(scripted: ScriptedBroker) -> None:
    client = client_of(scripted)
    await client.ping()

    await client.close()
    await client.close()

    with pytest.raises(UsageError, match="closed"):
        await client.ping()


# -------------------------------------------------------------------------------------------------- enqueue


async def test_a_task_is_enqueued_under_a_new_id_by_the_clock_of_the_broker(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_id = await client.enqueue(task(b"payload"))

    assert scripted.tasks == {task_id: (SPEC, b"payload")}
    assert abs(made_at(task_id) - CLOCK_MS) < 60_000
    [frame] = scripted.frames
    assert abs(made_at(frame) - CLOCK_MS) < 60_000


async def test_a_task_may_bring_its_id(scripted: ScriptedBroker) -> None:
    mine = new_id()

    async with client_of(scripted) as client:
        assert await client.enqueue(task(task_id=mine)) == mine
        with pytest.raises(DuplicateTask):
            await client.enqueue(task(task_id=mine))


async def test_an_enqueue_whose_answer_was_lost_is_repeated_and_takes_effect_once(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, take_and_drop(scripted), drop)

    async with client_of(scripted) as client:
        task_id = await client.enqueue(task())

    assert list(scripted.tasks) == [task_id]
    first, *others = scripted.seen(Type.ENQUEUE)
    assert others == [first, first]


@pytest.mark.parametrize(
    "wrong, error, text",
    [
        (task(bytes(256 * 1024 + 1)), PayloadTooLarge, "may have 262144 bytes; got 262145"),
        (task(spec=TaskSpec("")), InvalidArgument, "1 to 255 characters"),
        (task(spec=TaskSpec("mail.send", "a b")), InvalidArgument, "queue name"),
        (task(task_id=TaskId(bytes(16))), InvalidArgument, "UUIDv7"),
        (task(task_id=TaskId(b"short")), InvalidArgument, "UUIDv7"),
    ],
)
async def test_a_task_that_would_be_refused_is_not_sent(
    scripted: ScriptedBroker, wrong: Task, error: type[Exception], text: str
) -> None:
    async with client_of(scripted) as client:
        with pytest.raises(error, match=text):
            await client.enqueue(wrong)

    assert not scripted.seen(Type.ENQUEUE)


async def test_a_full_store_is_the_callers_to_handle(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, refuse(BrokerStoreFull("1 MB left")))

    async with client_of(scripted) as client:
        with pytest.raises(BrokerStoreFull, match="1 MB left"):
            await client.enqueue(task())
        assert await client.enqueue(task())


async def test_many_tasks_are_enqueued_in_their_order(scripted: ScriptedBroker) -> None:
    tasks = [task(str(number).encode()) for number in range(20_500)]

    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(iter(tasks))

    assert list(scripted.tasks) == task_ids == sorted(task_ids)
    assert [payload for _, payload in scripted.tasks.values()] == [one.payload for one in tasks]
    assert len(scripted.frames) == 21


async def test_no_tasks_are_no_frames(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        assert await client.enqueue_many([]) == []

    assert not scripted.frames


async def test_long_payloads_travel_in_more_frames(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        await client.enqueue_many(task(bytes(100_000)) for _ in range(5))
        await client.enqueue_many([task(bytes(FRAME_TASK_BYTES_MAX))])

    assert [len(frame.tasks) for frame in scripted.seen(Type.ENQUEUE) if isinstance(frame, m.Enqueue)] == [2, 2, 1, 1]


async def test_a_frame_names_each_spec_once(scripted: ScriptedBroker) -> None:
    other = TaskSpec("mail.check", "mail")
    same = TaskSpec("mail.send", "mail")

    async with client_of(scripted) as client:
        await client.enqueue_many(task(spec=spec) for spec in (SPEC, other, same, SPEC, other))

    [frame] = scripted.seen(Type.ENQUEUE)
    assert isinstance(frame, m.Enqueue)
    assert frame.specs == [SPEC, other]
    assert [task.spec_index for task in frame.tasks] == [0, 1, 0, 0, 1]


async def test_refused_ones_of_many_are_listed_and_the_others_enqueued(scripted: ScriptedBroker) -> None:
    known = new_id()
    tasks = [task(), task(bytes(256 * 1024 + 1)), task(task_id=known), task(), task(spec=TaskSpec(""))]

    async with client_of(scripted) as client:
        await client.enqueue(task(task_id=known))
        with pytest.raises(EnqueueRefused) as caught:
            await client.enqueue_many(tasks)

    refused = caught.value.refused
    assert [(one.index, one.code) for one in refused] == [
        (1, ErrorCode.PAYLOAD_TOO_LARGE),
        (2, ErrorCode.DUPLICATE_TASK),
        (4, ErrorCode.INVALID_ARGUMENT),
    ]
    assert [task_id is not None for task_id in caught.value.ids] == [True, False, False, True, False]
    assert set(scripted.tasks) == {known, *filter(None, caught.value.ids)}
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert str(caught.value).startswith("3 of 5 tasks were refused; the first is number 1: payload_too_large: ")


async def test_after_a_refused_frame_no_more_are_sent(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        await client.ping()
        scripted.next(Type.ENQUEUE, scripted._answer, refuse(BrokerStoreFull("full")))
        with pytest.raises(EnqueueRefused) as caught:
            await client.enqueue_many(itertools.repeat(task()))

    assert caught.value.code is ErrorCode.STORE_FULL
    assert len(caught.value.refused) == 1_000
    assert caught.value.refused[0].index == 1_000
    assert list(scripted.tasks) == [task_id for task_id in caught.value.ids if task_id is not None]


@pytest.mark.parametrize("place", [0, 3, 9])
async def test_many_tasks_survive_lost_connections_once_each_and_in_order(scripted: ScriptedBroker, place: int) -> None:
    answers = [scripted._answer] * place
    scripted.next(Type.ENQUEUE, *answers, take_and_drop(scripted), *answers, drop)

    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(15_000))

    assert list(scripted.tasks) == task_ids
    assert len(task_ids) == 15_000
    assert scripted.connections > 1


async def test_an_overloaded_broker_gets_the_frame_again(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, refuse(broker_error("overloaded", "later", 1)))

    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many([task(), task()])

    assert list(scripted.tasks) == task_ids


async def test_many_tasks_end_with_their_deadline(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, *[silence] * 3)

    async with client_of(scripted, request_timeout_s=0.2) as client:
        with pytest.raises(RequestTimeout):
            await client.enqueue_many(task() for _ in range(3_000))


# ------------------------------------------------------------------------------------------------- results


async def test_the_result_of_a_task_is_pushed(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_id = await client.enqueue(task())

        def wait_and_complete(peer: object, request: object) -> None:
            scripted._answer(peer, request)  # type: ignore[arg-type]
            scripted.complete(task_id, b"\x2a")

        scripted.next(Type.WAIT, wait_and_complete)
        result = await client.wait(task_id, timeout=10)

    assert (result.id, result.state, result.result) == (task_id, TaskState.COMPLETED, b"\x2a")


async def test_the_result_of_a_task_that_has_ended_is_there_at_once(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_id = await client.enqueue(task())
        scripted.complete(task_id)

        assert (await client.wait(task_id)).id == task_id


async def test_waiting_survives_lost_connections_and_brokers_that_go_away(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_id = await client.enqueue(task())

        def wait_and(then: object) -> object:
            def action(peer: object, request: object) -> None:
                scripted._answer(peer, request)  # type: ignore[arg-type]
                then()  # type: ignore[operator]

            return action

        scripted.next(
            Type.WAIT,
            wait_and(scripted.drop_all),  # type: ignore[arg-type]
            drop,
            wait_and(lambda: scripted.push_all(m.GoingAway("restart"))),  # type: ignore[arg-type]
            wait_and(lambda: scripted.complete(task_id)),  # type: ignore[arg-type]
        )
        result = await client.wait(task_id, timeout=10)

    assert result.id == task_id
    assert scripted.connections == 4


async def test_a_wait_that_is_over_says_so_and_is_withdrawn(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_id = await client.enqueue(task())

        with pytest.raises(ResultTimeout, match=r"not ended after 0\.05 s"):
            await client.wait(task_id, timeout=0.05)
        await client.ping()

    assert scripted.seen(Type.UNWAIT) == [m.Unwait([task_id])]


async def test_an_unknown_task_cannot_be_waited_for(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        with pytest.raises(TaskNotFound, match="does not know it"):
            await client.wait(new_id())


async def test_a_refused_wait_is_an_error(scripted: ScriptedBroker) -> None:
    scripted.next(Type.WAIT, refuse(Overloaded("too many waits")))

    async with client_of(scripted) as client:
        with pytest.raises(Overloaded, match="too many waits"):
            await client.wait(new_id())


async def test_results_of_many_come_as_they_end(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(2_500))
        order = [*task_ids[1::2], *task_ids[::2]]
        for task_id in order[:1_250]:
            scripted.complete(task_id)

        seen = []
        async for result in client.wait_many(task_ids, timeout=10):
            seen.append(result.id)
            if len(seen) == 1_250:
                for task_id in order[1_250:]:
                    scripted.complete(task_id)

    assert sorted(seen) == sorted(task_ids)
    assert set(seen[:1_250]) == set(order[:1_250])


async def test_results_that_do_not_fit_into_one_frame_are_waited_for_in_halves(scripted: ScriptedBroker) -> None:
    too_long = refuse(BatchTooLarge("2 MB of results"))

    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(5))
        for task_id in task_ids:
            scripted.complete(task_id)
        scripted.next(Type.WAIT, too_long, too_long)

        seen = [result.id async for result in client.wait_many(task_ids, timeout=10)]

    assert sorted(seen) == task_ids
    assert len(scripted.seen(Type.WAIT)) == 5


async def test_a_wait_that_never_fits_is_an_error(scripted: ScriptedBroker) -> None:
    scripted.next(Type.WAIT, *[refuse(BatchTooLarge("2 MB"))] * 3)

    async with client_of(scripted) as client:
        one, other = await client.enqueue_many([task(), task()])
        with pytest.raises(BatchTooLarge):
            await anext(client.wait_many([one, other], timeout=10))


async def test_results_of_many_survive_a_lost_connection(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(10))
        scripted.complete(task_ids[3])

        seen = []
        async for result in client.wait_many(task_ids, timeout=10):
            seen.append(result.id)
            if len(seen) == 1:
                scripted.drop_all()
                for task_id in task_ids:
                    scripted.complete(task_id)

    assert seen[0] == task_ids[3]
    assert sorted(seen) == task_ids


async def test_unknown_ones_of_many_are_told_after_the_others(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        known = await client.enqueue(task())
        scripted.complete(known)

        results = client.wait_many([new_id(), known, new_id()])
        first = await anext(results)
        with pytest.raises(TaskNotFound, match="and 1 others"):
            await anext(results)

    assert first.id == known


async def test_waiting_for_none_ends_at_once(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        assert [result.id async for result in client.wait_many([])] == []


# --------------------------------------------------------------------------------------------- other requests


async def test_tasks_are_looked_up_in_their_order(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(1_500))
        unknown = new_id()

        views = await client.get([unknown, *task_ids])

    assert [view.id if view else None for view in views] == [None, *task_ids]


async def test_views_that_do_not_fit_into_one_frame_are_asked_for_in_halves(scripted: ScriptedBroker) -> None:
    too_long = refuse(BatchTooLarge("2 MB of results"))

    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(5))
        scripted.next(Type.GET, too_long, too_long)

        views = await client.get(task_ids)

    assert [view.id if view else None for view in views] == task_ids
    assert [len(get.ids) for get in scripted.seen(Type.GET) if isinstance(get, m.Get)] == [5, 2, 1, 1, 3]


async def test_cancelling_tells_what_could_not_be(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        known, unknown = await client.enqueue(task()), new_id()

        refused = await client.cancel([known, unknown])

    assert list(refused) == [unknown]
    assert isinstance(refused[unknown], TaskNotFound)


@pytest.mark.parametrize("limit, pages", [(None, [1_000, 1_000, 1_000]), (1_200, [1_000, 200]), (10, [10]), (0, [])])
async def test_tasks_are_listed_page_by_page(scripted: ScriptedBroker, limit: int | None, pages: list[int]) -> None:
    async with client_of(scripted) as client:
        task_ids = await client.enqueue_many(task() for _ in range(2_500))

        listed = [view.id async for view in client.list_tasks(TaskState.READY, "mail", limit)]

    assert listed == task_ids[:limit]
    assert [page.limit for page in scripted.seen(Type.LIST_TASKS) if isinstance(page, m.ListTasks)] == pages


async def test_queues_dead_letters_and_workers_are_asked_for(scripted: ScriptedBroker) -> None:
    async with client_of(scripted) as client:
        assert await client.queues() == []
        assert await client.workers() == []
        assert await client.control_queue("mail", QueueAction.PAUSE) == 0
        assert await client.control_dead(DeadAction.REDRIVE, "mail") == 7
        assert await client.control_dead(DeadAction.PURGE, task_ids=[new_id() for _ in range(1_001)]) == 1_001

    assert len(scripted.seen(Type.CONTROL_DEAD)) == 3


async def test_pages_are_asked_for_until_there_is_no_cursor(scripted: ScriptedBroker) -> None:
    def page(message: msgspec.Struct) -> Action:
        return lambda peer, request: peer.reply(request, message)

    scripted.next(
        Type.LIST_QUEUES, page(m.Queues([QUEUE] * 2, b"q")), page(m.Queues([], b"r")), page(m.Queues([QUEUE]))
    )
    scripted.next(Type.LIST_WORKERS, page(m.Workers([WORKER], b"w")), page(m.Workers([WORKER])))

    async with client_of(scripted) as client:
        assert await client.queues() == [QUEUE] * 3
        assert await client.workers() == [WORKER] * 2

    assert scripted.seen(Type.LIST_QUEUES) == [m.ListQueues(None, 1_000, cursor) for cursor in (None, b"q", b"r")]
    assert scripted.seen(Type.LIST_WORKERS) == [m.ListWorkers(1_000, cursor) for cursor in (None, b"w")]


@pytest.mark.parametrize("queue, task_ids", [(None, None), ("mail", [])])
async def test_dead_letters_are_named_in_one_way(
    scripted: ScriptedBroker, queue: str | None, task_ids: list[TaskId] | None
) -> None:
    async with client_of(scripted) as client:
        with pytest.raises(UsageError, match="one of the two"):
            await client.control_dead(DeadAction.PURGE, queue, task_ids)


async def test_the_limits_are_those_of_the_broker(scripted: ScriptedBroker) -> None:
    scripted.next(Type.HELLO, welcome(m.Limits(1 << 20, 100, 2, 2_000, 10_000)))

    async with client_of(scripted) as client:
        await client.enqueue_many([task()] * 5)
        with pytest.raises(PayloadTooLarge, match="100 bytes; got 101"):
            await client.enqueue(task(bytes(101)))

    assert [len(frame.tasks) for frame in scripted.seen(Type.ENQUEUE) if isinstance(frame, m.Enqueue)] == [2, 2, 1]


# ------------------------------------------------------------------------------------------- with a real broker


async def test_queues_and_workers_are_read_to_the_last_page(broker: Dialer) -> None:
    names = [f"{number:06}".ljust(128, "q") for number in range(6_000)]
    async with AsyncClient(broker) as client:
        await client.enqueue_many(Task(TaskSpec("mail.send", name), b"") for name in names)

        queues = await client.queues()
        workers = await client.workers()

    assert [queue.name for queue in queues] == names
    assert all(queue.ready == 1 for queue in queues)
    assert workers == []


async def test_a_real_broker_keeps_what_it_is_given(broker: Dialer) -> None:
    async with AsyncClient(broker) as client:
        first = await client.enqueue(task(b"first"))
        others = await client.enqueue_many(task(str(number).encode()) for number in range(2_500))

        listed = [view.id async for view in client.list_tasks(TaskState.READY, "mail")]
        [queue] = await client.queues("mail")
        [found, unknown] = await client.get([first, new_id()])
        stats = await client.stats()

    assert listed == [first, *others]
    assert (queue.name, queue.ready, queue.enqueued_total) == ("mail", 2_501, 2_501)
    assert found is not None
    assert (found.id, found.name, found.state, found.payload_bytes) == (first, "mail.send", TaskState.READY, 5)
    assert unknown is None
    assert (stats.ready, stats.connections) == (2_501, 1)


async def test_a_real_broker_refuses_single_tasks(broker: Dialer) -> None:
    known = new_real_id()

    async with AsyncClient(broker) as client:
        assert await client.enqueue(task(task_id=known)) == known
        with pytest.raises(DuplicateTask):
            await client.enqueue(task(task_id=known))
        with pytest.raises(EnqueueRefused) as caught:
            await client.enqueue_many([task(), task(task_id=known), task()])

    assert [(one.index, one.code) for one in caught.value.refused] == [(1, ErrorCode.DUPLICATE_TASK)]


async def test_a_real_broker_pushes_the_end_of_a_cancelled_task(broker: Dialer) -> None:
    async with AsyncClient(broker) as client:
        one, other = await client.enqueue_many([task(), task()])
        with pytest.raises(ResultTimeout):
            await client.wait(one, timeout=0.02)

        refused = await client.cancel([one, new_id()])
        result = await client.wait(one, timeout=10)

        assert [type(error) for error in refused.values()] == [TaskNotFound]
        assert (result.id, result.state) == (one, TaskState.CANCELLED)
        with pytest.raises(TaskNotFound):
            await client.wait(new_id(), timeout=10)
        with pytest.raises(ResultTimeout):
            await client.wait(other, timeout=0.02)


async def test_a_real_broker_tells_more_than_fits_into_a_frame(broker: Dialer) -> None:
    wordy = TaskSpec("\N{HOT PEPPER}" * 255, "mail")

    async with AsyncClient(broker) as client:
        task_ids = await client.enqueue_many(task(spec=wordy) for _ in range(2_000))

        listed = [view.id async for view in client.list_tasks(TaskState.READY, "mail")]
        views = await client.get(task_ids)

    assert listed == task_ids
    assert [view.id if view else None for view in views] == task_ids


async def test_a_real_broker_controls_its_queues(broker: Dialer) -> None:
    async with AsyncClient(broker) as client:
        await client.enqueue_many(task() for _ in range(3))

        await client.control_queue("mail", QueueAction.PAUSE)
        [paused] = await client.queues()
        purged = await client.control_queue("mail", QueueAction.PURGE)
        with pytest.raises(QueueNotFound):
            await client.control_queue("absent", QueueAction.PAUSE)

        assert paused.paused
        assert purged == 3
        assert await client.control_dead(DeadAction.REDRIVE, "mail") == 0
        assert await client.workers() == []
