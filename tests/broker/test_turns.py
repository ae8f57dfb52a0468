"""Turns: who is served when, how much at a time, and who must wait."""

from collections.abc import Awaitable, Mapping

import pytest

from tests.broker.peers import Bench, settle, stalling
from tq.broker.batch import SAID_BYTES_MAX, WRITTEN_BYTES_MAX
from tq.core.lease import DeliveryRef
from tq.core.limits import CHANGE_BYTES_MAX
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.protocol import messages
from tq.store.base import Commit
from tq.store.memory import MemoryStore


async def test_a_heartbeat_is_answered_while_the_disk_hangs() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client = await bench.client()
    await bench.worker()
    keeper = await bench.keeper()
    store.stall()
    client.send(bench.enqueue())
    await settle()

    keeper.send(messages.Heartbeat(1))
    await settle()

    assert keeper.received() == [messages.Ok()]
    store.resume()


def failures(delivery: messages.Deliver) -> messages.Settle:
    failure = TaskFailure("ValueError", "no", "t" * 16_384)
    return messages.Settle([], [FailedAttempt(delivery.token, at, failure) for at in range(len(delivery.records))])


async def test_a_settle_that_is_too_much_for_one_batch_is_answered_after_its_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, worker = await bench.client(), await bench.worker()
    for _ in range(20):
        client.send(bench.enqueue(payload=bytes(100_000)))
    await settle()
    deliveries = [message for message in worker.received() if isinstance(message, messages.Deliver)]
    commits: list[int] = []
    real = store.commit

    def commit(writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        commits.append(sum(len(key) + len(value or b"") for key, value in writes.items()))
        return real(writes, sync=sync)

    monkeypatch.setattr(store, "commit", commit)
    store.stall()
    for delivery in deliveries:
        worker.send(failures(delivery))
    await settle()
    assert worker.received() == []
    store.resume()
    await settle(200)

    answers = [message for message in worker.received() if isinstance(message, messages.Settled)]
    assert answers == [messages.Settled()] * len(deliveries)
    held = sum(len(delivery.records) for delivery in deliveries)
    assert held > 10
    assert len(commits) == 3
    assert max(commits) <= CHANGE_BYTES_MAX
    client.received()
    client.send(messages.ListQueues("default"))
    await settle()
    (view,) = client.received()[-1].queues
    assert view.failed_total == held


async def test_what_a_worker_settled_with_its_last_breath_counts_over_several_batches() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue(2, payload=bytes(200_000)))
    client.send(bench.enqueue(2, payload=bytes(200_000)))
    await settle()
    deliveries = [message for message in worker.received() if isinstance(message, messages.Deliver)]

    for delivery in deliveries:
        worker.send(failures(delivery))
    worker.session.connection_lost(None)
    await settle(50)

    client.received()
    client.send(messages.ListQueues("default"))
    await settle()
    (view,) = client.received()[-1].queues
    assert (view.failed_total, view.running) == (4, 0)


async def test_a_worker_that_floods_waits_for_the_next_batch_and_its_heartbeats_do_not() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, worker = await bench.client(), await bench.worker(window=1_000)
    keeper = await bench.keeper()
    client.send(bench.enqueue(1_000))
    await settle(50)
    places = [
        (message.token, index)
        for message in worker.received()
        if isinstance(message, messages.Deliver)
        for index in range(len(message.records))
    ]
    store.stall()
    client.send(messages.Ping())
    await settle()

    for token, index in places:
        worker.send(messages.Settle([Done(token, index, b"r" * 2_000)]))
    keeper.send(messages.Heartbeat(1))
    await settle()

    assert keeper.received() == [messages.Ok()]
    assert bench.service._batch.written_bytes < WRITTEN_BYTES_MAX + 512 * 1024
    store.resume()
    await settle(100)
    assert worker.received() == [messages.Settled()] * 1_000


async def test_small_requests_are_answered_between_the_turns_of_a_client_with_large_ones() -> None:
    bench = await Bench(MemoryStore()).start()
    greedy, modest = await bench.client(), await bench.client()

    for _ in range(40):
        greedy.send(bench.enqueue(payload=b"p" * 100_000))
    modest.send(bench.enqueue())
    await settle(4)

    assert modest.received() == [messages.Enqueued()]
    assert len(greedy.received()) < 40


async def test_a_peer_that_does_not_read_gets_no_turns_until_it_does() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    client.session.pause_writing()

    client.send(messages.Ping())
    await settle()

    assert client.received() == []
    client.session.resume_writing()
    await settle()
    assert isinstance(client.received()[0], messages.Pong)


async def test_one_client_that_asks_for_many_long_answers_at_once_lets_others_in_between() -> None:
    bench = await Bench(MemoryStore()).start()
    greedy, modest = await bench.client(), await bench.client()
    greedy.send(bench.enqueue(500))
    await settle()
    greedy.received()

    for _ in range(300):  # 6 KB of requests for 30 MB of answers
        greedy.send(messages.ListTasks("ready", None, 500))
    modest.send(messages.Ping())
    await settle(4)

    assert max(greedy.wire.writes) < 2 * SAID_BYTES_MAX
    assert isinstance(modest.received()[0], messages.Pong)


async def test_what_a_keeper_says_of_started_tasks_waits_for_the_next_batch_and_its_heartbeats_do_not() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, worker = await bench.client(), await bench.worker()
    keeper, other = await bench.keeper(), await bench.keeper()
    client.send(bench.enqueue(3))
    await settle()
    (deliver,) = worker.received()
    store.stall()
    client.send(messages.Ping())
    await settle()
    for index in range(2):
        worker.send(messages.Settle([Done(deliver.token, index, b"r" * 256_000)]))
    await settle()
    batch = bench.service._batch
    assert batch.full
    writes = len(batch.changes.writes)

    keeper.send(messages.Started([DeliveryRef(deliver.token, 2)]))
    other.send(messages.Heartbeat(1))
    await settle()

    assert bench.service._batch is batch
    assert len(batch.changes.writes) == writes
    assert other.received() == [messages.Ok()]
    store.resume()
    await settle(50)
    # It has been said to have started: the end of its silent worker is a loss.
    bench.pass_time(30_000)
    await settle()
    client.received()
    client.send(messages.ListQueues("default"))
    await settle()
    (view,) = client.received()[-1].queues
    assert view.lost_total == 1


@pytest.mark.parametrize("size", [90_000, 256_000])
async def test_clients_have_a_turn_though_workers_fill_batch_after_batch(size: int) -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, other, worker = await bench.client(), await bench.client(), await bench.worker()
    client.send(bench.enqueue(40))
    await settle()
    (deliver,) = worker.received()
    client.received()
    store.stall()
    client.send(messages.Ping())
    await settle()

    for index in range(40):
        worker.send(messages.Settle([Done(deliver.token, index, b"r" * size)]))
    client.send(bench.enqueue())
    other.send(messages.ListQueues("default"))
    store.resume()
    answered, settled = [], 0
    for _ in range(200):
        await settle(1)
        settled += worker.received().count(messages.Settled())
        answered += client.received() + other.received()
        if len(answered) == 3:
            break

    assert [type(message) for message in answered].count(messages.Enqueued) == 1
    # Two batches, of which the second is the clients' first.
    assert settled * size < 3 * (WRITTEN_BYTES_MAX + size)
    await settle(200)
    assert settled + worker.received().count(messages.Settled()) == 40


async def test_a_worker_whose_last_words_are_dropped_before_its_turn_is_forgotten() -> None:
    bench = await Bench(MemoryStore()).start()
    worker = await bench.worker()

    worker.send(messages.Window(1, 1))
    worker.session.connection_lost(None)
    worker.session.void()
    await settle()

    assert len(bench.service._connections) == 0
    assert bench.service._connections.workers == 0
