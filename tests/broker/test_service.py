"""The service: what leaves it, when, and what happens when something breaks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import pytest

from tests.broker.peers import START_MS, Bench, Peer, records, settle, stalling
from tq.broker.batch import WRITES_MAX
from tq.core.errors import StoreError
from tq.core.lease import DeliveryRef
from tq.core.limits import FRAME_BYTES_MAX
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.core.task import TaskSpec
from tq.core.worker import WorkerInfo
from tq.engine import operations
from tq.engine.rows import READY, WORKER, key_end
from tq.engine.workers import SENT_BYTES_MAX, WINDOW_TASKS_MAX
from tq.protocol import messages
from tq.protocol.codec import encode_message
from tq.protocol.frames import HEADER
from tq.protocol.messages import QueueWeight
from tq.store.base import Commit, Health
from tq.store.memory import MemoryStore


async def test_a_reply_waits_until_its_batch_is_durable() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client = await bench.client()
    store.stall()

    client.send(bench.enqueue())
    await settle()

    assert client.received() == []
    store.resume()
    await settle()
    assert client.received() == [messages.Enqueued()]


async def test_a_delivery_waits_until_its_task_is_durable() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, worker = await bench.client(), await bench.worker()
    store.stall()

    client.send(bench.enqueue())
    await settle()

    assert worker.received() == []
    store.resume()
    await settle()
    assert isinstance(worker.received()[0], messages.Deliver)


async def test_a_read_waits_behind_the_batch_that_it_saw() -> None:
    store = stalling()
    bench = await Bench(store).start()
    writer, reader = await bench.client(), await bench.client()
    store.stall()
    enqueue = bench.enqueue()
    writer.send(enqueue)
    await settle()

    reader.send(messages.Get([enqueue.tasks[0].id]))
    await settle()

    assert reader.received() == []
    store.resume()
    await settle()
    (answer,) = reader.received()
    assert answer.tasks[0].state.value == "ready"


async def test_what_arrives_during_a_commit_is_the_next_batch() -> None:
    store = stalling()
    bench = await Bench(store).start()
    clients = [await bench.client() for _ in range(5)]
    store.stall()
    clients[0].send(bench.enqueue())
    await settle()
    before = bench.service._commit.commits

    for client in clients[1:]:
        client.send(bench.enqueue())
    await settle()
    store.resume()
    await settle()

    assert [client.received() for client in clients] == [[messages.Enqueued()]] * 5
    assert bench.service._commit.commits - before == 2


async def test_a_killed_service_says_and_commits_nothing_more() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client, other = await bench.client(), await bench.client()
    store.stall()
    client.send(bench.enqueue())
    await settle()
    other.send(bench.enqueue())

    bench.service.kill()
    store.resume()
    await settle()

    assert client.received() == other.received() == []
    assert not client.wire.closed
    assert store.unsynced == 0


async def test_a_failed_commit_says_nothing_and_stops_the_service() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client = await bench.client()
    store.fail_next_sync(StoreError("the disk is on fire"))

    client.send(bench.enqueue())
    await settle()

    assert client.received() == []
    assert client.wire.closed
    assert bench.service.failed is not None
    with pytest.raises(StoreError, match="on fire"):
        bench.service.failed.result()


async def test_a_bug_in_a_command_stops_the_service_before_anything_of_its_batch_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = await Bench(MemoryStore()).start()
    client, other = await bench.client(), await bench.client()
    monkeypatch.setattr(bench.service.engine._lookup, "get", lambda *_: 1 / 0)

    other.send(bench.enqueue())
    client.send(messages.Get([]))
    await settle()

    assert other.received() == []
    assert client.received() == []
    assert isinstance(bench.service.failed and bench.service.failed.exception(), ZeroDivisionError)


async def test_heartbeats_that_wait_in_the_buffers_are_applied_before_any_lease_runs_out() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    keeper = await bench.keeper()
    client.send(bench.enqueue())
    await settle()
    client.received()
    worker.received()
    for _ in range(9):
        bench.pass_time(1_000)
        await settle()

    # The lease is about to run out; the heartbeat has come, its turn has not.
    bench.now_ms += 1_000
    bench.seconds += 1
    keeper.send(messages.Heartbeat(1))
    bench.service._tick()
    bench.pass_time(2_000)
    await settle()

    assert worker.received() == []
    client.send(messages.ListWorkers())
    await settle()
    assert [view.held for view in client.received()[0].workers] == [1]


async def test_a_silent_worker_loses_its_tasks_and_is_told() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue())
    await settle()
    (deliver,) = worker.received()

    bench.pass_time(11_000)
    await settle()

    revoke, error = worker.received()
    assert revoke == messages.Revoke([DeliveryRef(deliver.token, 0)])
    assert (error.code, error.closes) == ("session_unknown", True)
    assert worker.wire.closed


async def test_an_idle_worker_that_was_suspended_for_too_long_is_made_to_register_anew() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()

    bench.pass_time(11_000)
    await settle()
    assert [error.code for error in worker.received()] == ["session_unknown"]
    worker.session.connection_lost(None)
    again = await bench.worker(session=b"t" * 16)
    client.send(bench.enqueue())
    await settle()

    assert [type(message) for message in again.received()] == [messages.Deliver]


async def test_a_broker_that_was_stopped_for_a_minute_takes_no_lease_away() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue())
    await settle()
    worker.received()

    bench.now_ms += 60_000
    bench.seconds += 60
    bench.service._tick()
    await settle()

    assert worker.received() == []


async def test_a_task_runs_and_its_result_is_pushed_to_who_waits() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    enqueue = bench.enqueue()
    task_id = enqueue.tasks[0].id
    client.send(enqueue)
    client.send(messages.Wait([task_id]))
    await settle()
    (deliver,) = worker.received()

    worker.send(messages.Settle([Done(deliver.token, 0, b"\x2a")]))
    await settle()

    assert worker.received() == [messages.Settled()]
    enqueued, waited, results = client.received()
    assert (enqueued, waited) == (messages.Enqueued(), messages.Waited([], []))
    assert [(result.id, result.result) for result in results.results] == [(task_id, b"\x2a")]


async def test_a_ping_is_answered_once_the_store_has_answered() -> None:
    store = stalling()
    bench = await Bench(store).start()
    client = await bench.client()
    store.stall()

    client.send(messages.Ping())
    await settle()

    assert client.received() == []
    store.resume()
    await settle()
    assert [type(message) for message in client.received()] == [messages.Pong]


async def test_a_worker_that_does_not_read_gets_no_more_tasks_until_it_does_and_is_served_meanwhile() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue())
    await settle()
    (first,) = worker.received()

    worker.session.pause_writing()
    client.send(bench.enqueue(20))
    worker.send(messages.Settle([Done(first.token, 0, None)]))
    await settle()

    assert worker.received() == [messages.Settled()]
    worker.session.resume_writing()
    await settle()
    (rest,) = worker.received()
    assert len(rest.records) == 20


async def test_one_batch_hands_no_worker_more_than_it_can_be_sent_at_once() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker(window=1_000, window_bytes=1 << 30)
    worker.session.pause_writing()
    for _ in range(20):
        client.send(bench.enqueue(payload=b"p" * 250_000))
    await settle(200)

    worker.session.resume_writing()
    await settle(200)

    assert sum(len(deliver.records) for deliver in worker.received()) == 20
    assert max(worker.wire.writes) < SENT_BYTES_MAX + 512 * 1024


async def test_a_worker_may_not_ask_the_broker_to_hold_without_bound() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker(window=2**31, window_bytes=2**40)
    for _ in range(24):
        client.send(bench.enqueue(1_000))
    await settle(400)

    delivered = sum(len(message.records) for message in worker.received())

    assert delivered == WINDOW_TASKS_MAX


async def test_results_that_do_not_fit_one_frame_come_in_several() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()
    enqueue = bench.enqueue(8)
    client.send(enqueue)
    client.send(messages.Wait([task.id for task in enqueue.tasks]))
    await settle()
    (deliver,) = worker.received()
    client.received()

    for half in (range(4), range(4, 8)):
        worker.send(messages.Settle([Done(deliver.token, index, b"r" * 200_000) for index in half]))
    await settle()

    pushes = client.received()
    assert len(pushes) > 1
    assert sorted(result.id for push in pushes for result in push.results) == [task.id for task in enqueue.tasks]


async def test_a_violation_is_answered_and_closes_only_its_own_connection() -> None:
    bench = await Bench(MemoryStore()).start()
    good, bad = await bench.client(), await bench.client()

    bad.session.data_received(HEADER.pack(3, 16, 0, 7) + b"\xc1\xc1\xc1")
    good.send(bench.enqueue())
    await settle()

    (error,) = bad.received()
    assert (error.code, error.closes, bad.wire.closed) == ("protocol_violation", True, True)
    assert (good.received(), good.wire.closed) == ([messages.Enqueued()], False)


async def test_an_oversized_frame_is_refused_from_its_header() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()

    client.session.data_received(HEADER.pack(0xFFFFFFFF, 16, 0, 7))
    await settle()

    assert client.received()[0].code == "frame_too_large"
    assert client.wire.closed


async def test_requests_served_before_a_violation_are_still_answered() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()

    client.send(bench.enqueue())
    await asyncio.sleep(0)
    client.session.data_received(HEADER.pack(0xFFFFFFFF, 16, 0, 7))
    await settle()

    assert [type(message) for message in client.received()] == [messages.Enqueued, messages.Error]


async def test_a_violation_right_behind_a_request_voids_it_and_harms_nobody_else() -> None:
    bench = await Bench(MemoryStore()).start()
    bad, good = await bench.client(), await bench.client()

    bad.send(bench.enqueue())
    bad.session.data_received(HEADER.pack(0xFFFFFFFF, 16, 0, 7))
    good.send(messages.Ping())
    await settle()

    assert [type(message) for message in bad.received()] == [messages.Error]
    assert isinstance(good.received()[0], messages.Pong)


async def test_a_client_may_not_settle_and_a_worker_may_not_enqueue() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()

    client.send(messages.Settle([Done(1, 0, None)]))
    worker.send(bench.enqueue())
    await settle()

    assert [peer.received()[-1].code for peer in (client, worker)] == ["protocol_violation"] * 2


async def test_a_refused_request_keeps_its_connection() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()

    client.send(messages.ControlQueue("nowhere", messages.QueueAction.PAUSE))
    client.send(messages.Ping())
    await settle()

    error, pong = client.received()
    assert (error.code, type(pong), client.wire.closed) == ("queue_not_found", messages.Pong, False)


class Disk(MemoryStore):
    """A store whose disk the test fills and slows down."""

    free_bytes = 1 << 40
    is_delayed = False
    reclaimed: tuple[tuple[bytes, bytes], ...] = ()

    def reclaim(self, start: bytes, end: bytes) -> None:
        self.reclaimed += ((start, end),)

    def health(self) -> Health:
        return Health(
            kind="memory",
            durability=None,
            disk_free_bytes=self.free_bytes,
            is_write_stopped=False,
            is_write_delayed=self.is_delayed,
            failure=None,
        )


async def test_a_nearly_full_disk_refuses_new_tasks_and_lets_running_ones_end() -> None:
    disk = Disk()
    bench = await Bench(disk).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue())
    await settle()
    (deliver,) = worker.received()
    disk.free_bytes = 1_000
    bench.pass_time(250)

    client.send(bench.enqueue())
    worker.send(messages.Settle([Done(deliver.token, 0, None)]))
    await settle()

    refusal = client.received()[-1]
    assert (refusal.code, refusal.retryable) == ("store_full", True)
    assert worker.received() == [messages.Settled()]
    disk.free_bytes = 1 << 40
    bench.pass_time(250)
    client.send(bench.enqueue())
    await settle()
    assert client.received() == [messages.Enqueued()]


async def test_the_store_is_asked_for_the_room_of_what_a_purge_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "EMPTIED_BYTES_MIN", 1)
    disk = Disk()
    bench = await Bench(disk).start()
    client = await bench.client()
    client.send(bench.enqueue())
    await settle()

    client.send(messages.ControlQueue("default", messages.QueueAction.PURGE))
    await settle()
    for _ in range(5):
        bench.pass_time(250)
        await settle()

    ((start, end),) = disk.reclaimed
    assert start[:1] == READY
    assert disk.scan(start, end, 1) == []


async def test_a_store_that_falls_behind_makes_clients_wait_but_not_workers() -> None:
    disk = Disk()
    bench = await Bench(disk).start()
    client, worker = await bench.client(), await bench.worker()
    client.send(bench.enqueue())
    await settle()
    (deliver,) = worker.received()
    client.received()
    disk.is_delayed = True
    bench.pass_time(250)

    client.send(bench.enqueue())
    worker.send(messages.Settle([Done(deliver.token, 0, None)]))
    await settle()

    assert (client.received(), worker.received()) == ([], [messages.Settled()])
    disk.is_delayed = False
    bench.pass_time(250)
    await settle()
    assert client.received() == [messages.Enqueued()]


async def test_a_client_that_sends_more_than_its_share_is_not_read_from_until_it_is_served() -> None:
    disk = Disk()
    bench = await Bench(disk, connection_bytes_max=2 << 20).start()
    client = await bench.client()
    disk.is_delayed = True
    bench.pass_time(250)

    for _ in range(30):
        client.send(bench.enqueue(payload=b"p" * 100_000))

    assert not client.wire.reading
    disk.is_delayed = False
    bench.pass_time(250)
    await settle(200)
    assert client.wire.reading
    assert client.received() == [messages.Enqueued()] * 30


async def test_when_all_clients_together_fill_the_buffer_each_must_wait() -> None:
    disk = Disk()
    bench = await Bench(disk, connection_bytes_max=2 << 20, buffer_bytes_max=16 << 20).start()
    clients = [await bench.client() for _ in range(12)]
    disk.is_delayed = True
    bench.pass_time(250)

    for client in clients:
        for _ in range(15):
            client.send(bench.enqueue(payload=b"p" * 100_000))

    assert not clients[-1].wire.reading
    disk.is_delayed = False
    bench.pass_time(250)
    await settle(2_000)
    assert all(client.wire.reading for client in clients)


async def test_more_connections_than_may_be_are_turned_away() -> None:
    bench = await Bench(MemoryStore(), connections_max=1).start()
    await bench.client()

    late = Peer(bench)

    assert late.received()[0].code == "overloaded"
    assert late.wire.closed


async def test_a_worker_that_comes_back_on_a_new_connection_replaces_the_old_one() -> None:
    bench = await Bench(MemoryStore()).start()
    client, first = await bench.client(), await bench.worker()
    client.send(bench.enqueue(3))
    await settle()
    (deliver,) = first.received()

    held = [messages.Held(deliver.token, [0, 1], [0])]
    second = Peer(bench)
    info = WorkerInfo("w", "host", 1, "async", 1, ["noop"])
    second.send(
        messages.Hello(
            messages.MAGIC, messages.VERSIONS.first, messages.Role.WORKER, "", b"s" * 16, b"x" * 16, info, held
        )
    )
    await settle()

    (welcome,) = second.received()
    assert (welcome.resumed, welcome.lost, first.wire.closed) == (True, [], True)
    client.received()
    client.send(messages.ListWorkers())
    await settle()
    (view,) = client.received()[0].workers
    assert (view.held, view.started) == (2, 1)


async def test_the_end_of_an_old_connection_does_not_disconnect_its_worker() -> None:
    bench = await Bench(MemoryStore()).start()
    first = await bench.worker()
    second = await bench.worker()

    first.session.connection_lost(None)
    client = await bench.client()
    client.send(bench.enqueue())
    await settle()

    assert isinstance(second.received()[0], messages.Deliver)


async def test_a_keeper_with_a_wrong_secret_is_refused() -> None:
    bench = await Bench(MemoryStore()).start()
    await bench.worker()
    keeper = Peer(bench)

    keeper.send(
        messages.Hello(
            messages.MAGIC, messages.VERSIONS.first, messages.Role.KEEPER, "", b"s" * 16, b"wrong secret 16b"
        )
    )
    await settle()

    assert keeper.received()[0].code == "session_unknown"
    assert keeper.wire.closed


async def test_a_notice_of_an_expired_worker_closes_its_connection_with_the_reason() -> None:
    bench = await Bench(MemoryStore()).start()
    worker = await bench.worker()
    bench.pass_time(11_000)

    worker.send(messages.Window(10, 1_000))
    await settle()

    assert worker.received()[-1].code == "session_unknown"
    assert worker.wire.closed


async def test_who_does_not_say_hello_in_time_is_dismissed_and_who_did_stays() -> None:
    bench = await Bench(MemoryStore()).start()
    client, stranger, gone = await bench.client(), Peer(bench), Peer(bench)
    gone.session.connection_lost(None)

    bench.pass_time(9_500)
    assert not stranger.wire.closed
    bench.pass_time(500)

    assert stranger.wire.closed
    assert [(error.code, error.text) for error in stranger.received()] == [
        ("protocol_violation", "no HELLO within 10 s")
    ]
    client.send(messages.Ping())
    await settle()
    assert [type(message) for message in client.received()] == [messages.Pong]


async def test_stop_says_goodbye_answers_what_is_under_way_and_closes() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    client.send(bench.enqueue())

    await bench.service.stop()
    await bench.service.stop()

    assert {type(message) for message in client.received()} == {messages.Enqueued, messages.GoingAway}
    assert client.wire.closed


async def test_stop_gives_up_on_a_hanging_disk_after_the_drain_time() -> None:
    store = stalling()
    bench = await Bench(store, drain_ms=0).start()
    client = await bench.client()
    store.stall()
    client.send(bench.enqueue())
    await settle()

    await bench.service.stop()

    assert client.wire.closed
    assert messages.Enqueued() not in client.received()
    assert "stop.unanswered" in [event for event, _ in bench.logged]


async def test_a_connection_during_the_stop_is_sent_elsewhere() -> None:
    bench = await Bench(MemoryStore()).start()
    await bench.service.stop()

    late = Peer(bench)

    assert late.received()[0].code == "going_away"


async def test_a_restart_keeps_tasks_and_takes_up_what_workers_hold() -> None:
    store = MemoryStore()
    first = await Bench(store).start()
    client, worker = await first.client(), await first.worker(window=1)
    client.send(first.enqueue(2))
    await settle()
    (deliver,) = worker.received()
    await first.service.stop()

    second = await Bench(store).start()
    again = Peer(second)
    info = WorkerInfo("w", "host", 1, "async", 1, ["noop"])
    held = [messages.Held(deliver.token, [0], [0])]
    again.send(
        messages.Hello(
            messages.MAGIC, messages.VERSIONS.first, messages.Role.WORKER, "", b"s" * 16, b"x" * 16, info, held
        )
    )
    again.send(messages.Subscribe([QueueWeight("default", 1)]))
    again.send(messages.Settle([Done(deliver.token, 0, None)]))
    again.send(messages.Window(10, 1 << 20))
    await settle()

    welcome, _, settled, next_delivery = again.received()
    assert (welcome.resumed, settled) == (True, messages.Settled())
    assert next_delivery.token > deliver.token
    assert len(records(next_delivery)) == 1


async def test_figures_add_up() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker(window=2)
    client.send(bench.enqueue(5, retry=TaskSpec("x").retry))
    await settle()
    (deliver,) = worker.received()
    worker.send(
        messages.Settle([Done(deliver.token, 0, None)], [FailedAttempt(deliver.token, 1, TaskFailure("E", "no"))])
    )
    worker.send(messages.Window(0, 0))
    await settle()
    client.received()

    client.send(messages.GetStats())
    await settle()

    (stats,) = client.received()
    assert (stats.enqueued_total, stats.completed_total, stats.failed_total) == (5, 1, 1)
    assert stats.ready + stats.running + stats.scheduled == 4
    assert (stats.connections, stats.workers, stats.queues) == (2, 1, 1)
    assert stats.clock_ms >= START_MS


async def test_a_worker_that_is_gone_is_forgotten_by_a_broker_that_hears_of_nobody() -> None:
    store = MemoryStore()
    bench = await Bench(store).start()
    worker = await bench.worker()
    worker.session.connection_lost(None)
    await settle()
    rows = [len(store.scan(WORKER, key_end(WORKER), 10))]

    bench.pass_time(11_000)
    await settle()

    rows.append(len(store.scan(WORKER, key_end(WORKER), 10)))
    assert rows == [1, 0]


async def with_one_delivered(bench: Bench) -> tuple[Peer, Peer, bytes, int]:
    """Let a client enqueue one task and a worker take it; return both, the task's id, and the token of its lease."""
    client, worker = await bench.client(), await bench.worker()
    enqueue = bench.enqueue()
    client.send(enqueue)
    await settle()
    (deliver,) = worker.received()
    client.received()
    return client, worker, enqueue.tasks[0].id, deliver.token


async def test_an_outcome_right_before_the_end_of_a_workers_connection_counts() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker, task_id, token = await with_one_delivered(bench)

    worker.send(messages.Settle([Done(token, 0, b"\x2a")]))
    worker.session.connection_lost(None)
    client.send(messages.Get([task_id]))
    await settle()

    (answer,) = client.received()
    assert answer.tasks[0].state.value == "completed"


async def test_a_started_mark_right_before_the_death_of_a_worker_makes_it_a_loss() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker, task_id, token = await with_one_delivered(bench)

    worker.send(messages.Started([DeliveryRef(token, 0)]))
    worker.session.connection_lost(None)
    bench.pass_time(11_000)
    client.send(messages.Get([task_id]))
    await settle()

    (answer,) = client.received()
    assert answer.tasks[0].losses == 1


async def test_a_violation_in_the_last_bytes_of_a_worker_harms_nobody() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker()

    worker.session.data_received(HEADER.pack(3, 35, 0, 7) + b"\xc1\xc1\xc1")
    worker.session.connection_lost(None)
    client.send(messages.Ping())
    await settle()

    assert isinstance(client.received()[0], messages.Pong)


async def test_who_said_hello_to_a_broker_that_is_held_back_is_welcomed_once_it_has_caught_up() -> None:
    disk = Disk()
    bench = await Bench(disk).start()
    disk.is_delayed = True
    bench.pass_time(250)
    patient = Peer(bench)
    patient.send(messages.Hello(messages.MAGIC, messages.VERSIONS.first, messages.Role.CLIENT))

    bench.pass_time(11_000)
    disk.is_delayed = False
    bench.pass_time(250)
    await settle()

    assert [type(message) for message in patient.received()] == [messages.Welcome]
    assert bench.service.failed is not None
    assert not bench.service.failed.done()


@pytest.mark.parametrize("ending", ["it reads again", "it goes"])
def test_a_worker_that_floods_and_does_not_read_is_dismissed_and_harms_nobody(ending: str) -> None:
    async def run() -> None:
        bench = await Bench(MemoryStore()).start()
        client, worker = await bench.client(), await bench.worker()
        worker.session.pause_writing()
        for _ in range(130):
            worker.send(messages.Settle([Done(1, 0, b"r" * 520_000)]))
        if ending == "it goes":
            worker.session.connection_lost(None)
        else:
            worker.session.resume_writing()
        client.send(messages.Ping())
        await settle()

        assert worker.received()[-1].code == "overloaded"
        assert [type(message) for message in client.received()] == [messages.Pong]

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_",
    [
        messages.Cancel([b"x"]),
        messages.Cancel([b""]),
        messages.ControlDead(messages.DeadAction.REDRIVE, None, [b"x"]),
        messages.ControlDead(messages.DeadAction.PURGE, None, [b"x" * 17]),
    ],
)
async def test_an_id_of_another_length_is_refused_and_does_not_stop_the_broker(request_: msgspec.Struct) -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()

    client.send(request_)
    await settle()

    assert bench.service.failed is not None
    assert not bench.service.failed.done()
    assert len(client.received()) == 1


async def test_a_worker_that_left_is_counted_and_kept_no_more() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    for number in range(3):
        worker = await bench.worker(session=bytes([number]) * 16)
        worker.send(messages.Goodbye())
        await settle()
        worker.session.connection_lost(None)

    client.send(messages.GetStats())
    await settle()

    assert client.received()[0].workers == 0


async def test_nothing_is_said_before_the_welcome() -> None:
    bench = await Bench(MemoryStore()).start()
    await bench.worker()
    keeper = Peer(bench)
    hello = messages.Hello(messages.MAGIC, messages.VERSIONS.first, messages.Role.KEEPER, "", b"s" * 16, b"x" * 16)

    keeper.session.data_received(bytes(encode_message(hello, 1) + encode_message(messages.Heartbeat(1), 2)))
    await settle()

    assert [type(each) for each in keeper.received()] == [messages.Welcome, messages.Ok]


async def test_frames_that_do_not_end_count_against_the_buffer_until_their_peers_are_given_up() -> None:
    bench = await Bench(MemoryStore(), connection_bytes_max=2 << 20, buffer_bytes_max=16 << 20).start()
    peers = [Peer(bench) for _ in range(16)]
    for peer in peers:
        peer.send(messages.Hello(messages.MAGIC, messages.VERSIONS.first, messages.Role.CLIENT))
    await settle()

    for peer in peers:
        peer.session.data_received(HEADER.pack(FRAME_BYTES_MAX, 16, 0, 2) + b"x" * (FRAME_BYTES_MAX - 1))
    late = Peer(bench)
    late.send(messages.Hello(messages.MAGIC, messages.VERSIONS.first, messages.Role.CLIENT))
    await settle()
    was_read = late.wire.reading
    bench.pass_time(21_000)
    await settle()

    assert not was_read
    assert [peer.received()[-1].code for peer in peers if peer.wire.closed] == ["protocol_violation"] * 15
    assert late.wire.reading


async def test_a_dismissed_peer_that_does_not_read_is_cut_off() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    client.session.data_received(HEADER.pack(0xFFFFFFFF, 16, 0, 7))
    await settle()

    bench.pass_time(10_000)
    was_cut = client.wire.aborted
    bench.pass_time(10_000)

    assert (was_cut, client.wire.aborted) == (False, True)


class Counting(MemoryStore):
    """A store that keeps how many rows each batch wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.rows_written: list[int] = []

    def commit(self, writes: Mapping[bytes, bytes | None], *, sync: bool = True) -> Awaitable[Commit]:
        self.rows_written.append(len(writes))
        return super().commit(writes, sync=sync)


async def test_what_a_worker_asks_of_thousands_of_tasks_is_done_in_several_batches() -> None:
    store = Counting()
    bench = await Bench(store).start()
    client = await bench.client()
    for _ in range(10):
        client.send(bench.enqueue(500))
    worker = await bench.worker(window=0)
    worker.send(messages.Window(5_000, 1 << 24))
    await settle(60)
    places = [
        DeliveryRef(deliver.token, index)
        for deliver in worker.received()
        if isinstance(deliver, messages.Deliver)
        for index in range(len(deliver.records))
    ]
    assert len(places) == 5_000
    client.send(messages.ControlQueue("default", messages.QueueAction.PURGE))
    await settle()
    client.received()
    store.rows_written.clear()

    worker.send(messages.Started(places))
    worker.send(messages.Release(places[:1_500]))
    worker.send(messages.Goodbye())
    await settle(60)

    assert [type(message) for message in worker.received()] == [messages.Ok]
    assert max(store.rows_written) < WRITES_MAX // 2
    assert sum(store.rows_written) >= 10_000
    client.send(messages.GetStats())
    await settle()
    assert client.received()[0].workers == 0
    assert client.received() == []


async def test_a_worker_that_comes_back_without_its_thousands_of_tasks_is_welcomed_once_all_are_back() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    for _ in range(6):
        client.send(bench.enqueue(500))
    await bench.worker(window=3_000)
    await settle(60)

    await bench.worker(window=0)  # the same session

    client.send(messages.ListQueues())
    await settle()
    (queue,) = client.received()[-1].queues
    assert (queue.ready, queue.running) == (3_000, 0)


async def test_a_sweep_drops_nothing_of_what_a_worker_said_with_its_last_breath() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker, task_id, token = await with_one_delivered(bench)

    worker.send(messages.Settle([Done(token, 0, b"\x2a")]))
    worker.session.data_received(HEADER.pack(1_000, 35, 0, 2) + b"x")
    bench.service._sweep_at = 0.0
    bench.service._dismiss_the_silent()
    worker.session.connection_lost(None)
    bench.service._sweep_at = 0.0
    bench.service._dismiss_the_silent()
    client.send(messages.Get([task_id]))
    await settle()

    (answer,) = client.received()
    assert answer.tasks[0].state.value == "completed"
    assert len(bench.service._connections) == 1


@pytest.mark.parametrize("broken", ["pressure.check", "_connections.silent", "engine.next_tick"])
async def test_a_bug_in_the_passage_of_time_stops_the_service(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    part, name = broken.split(".")
    monkeypatch.setattr(getattr(bench.service, part), name, lambda *_: 1 / 0)

    bench.pass_time(250)
    await settle()

    assert isinstance(bench.service.failed and bench.service.failed.exception(), ZeroDivisionError)
    assert client.wire.closed


@pytest.mark.parametrize(
    "happens",
    [
        lambda worker: worker.session.connection_lost(None),
        lambda worker: worker.session.pause_writing(),
    ],
)  # fmt: skip
async def test_a_bug_in_what_a_connection_tells_stops_the_service(
    happens: Callable[[Peer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await Bench(MemoryStore()).start()
    worker, client = await bench.worker(), await bench.client()
    monkeypatch.setattr(bench.service.engine, "apply", lambda *_: 1 / 0)

    happens(worker)
    await settle()

    assert isinstance(bench.service.failed and bench.service.failed.exception(), ZeroDivisionError)
    assert client.wire.closed


async def test_a_bug_in_what_comes_after_a_commit_stops_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stalling()
    bench = await Bench(store).start()
    client = await bench.client()
    store.stall()
    client.send(bench.enqueue())
    await settle()
    monkeypatch.setattr(bench.service._turns, "take_up_unfinished", lambda: 1 / 0)

    store.resume()
    await settle()

    assert isinstance(bench.service.failed and bench.service.failed.exception(), ZeroDivisionError)
    assert client.wire.closed
