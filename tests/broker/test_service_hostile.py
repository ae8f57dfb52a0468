"""A hostile peer against the service: what one connection says must not stop, stall or fill the broker."""

import asyncio

import msgspec
import pytest

from tests.broker.peers import Bench, Peer, settle
from tq.core.outcome import TaskFailure
from tq.core.retry import RetryPolicy
from tq.core.task import TaskSpec
from tq.protocol import messages
from tq.protocol.codec import encode_message
from tq.protocol.frames import FRAME_BYTES_MAX, HEADER, HEADER_BYTES
from tq.store.memory import MemoryStore

AT_ONCE = RetryPolicy(backoff_ms=0, backoff_max_ms=0, jitter=0)


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
    assert bench.service._workers == {}


async def test_one_client_that_asks_for_many_long_answers_at_once_lets_others_in_between() -> None:
    bench = await Bench(MemoryStore()).start()
    greedy, modest = await bench.client(), await bench.client()
    greedy.send(bench.enqueue(500))
    await settle()
    greedy.received()

    for _ in range(300):
        greedy.send(messages.ListTasks("ready", None, 500))
    modest.send(messages.Ping())
    await settle(4)

    # All 300, of 100 KB each, are built in one turn of 6 KB of requests, and held until the next commit.
    assert len(greedy.wire.written) < 4 << 20
    assert isinstance(modest.received()[0], messages.Pong)


async def test_what_is_delivered_can_be_read() -> None:
    bench = await Bench(MemoryStore()).start()
    client, worker = await bench.client(), await bench.worker(window=1)
    client.send(bench.enqueue(payload=b"p" * 200_000, retry=AT_ONCE))
    await settle()
    (deliver,) = worker.received()

    worker.send(messages.Settle([], [messages.Failure(deliver.token, 0, TaskFailure("E", "m" * 1_000_000))]))
    await settle()
    bench.pass_time(1_000)
    await settle()

    lengths, at = [], 0
    while at < len(worker.wire.written):
        lengths.append(HEADER.unpack_from(worker.wire.written, at)[0])
        at += HEADER_BYTES + lengths[-1]
    assert max(lengths) <= FRAME_BYTES_MAX


async def test_nothing_is_said_before_the_welcome() -> None:
    bench = await Bench(MemoryStore()).start()
    await bench.worker()
    keeper = Peer(bench)
    hello = messages.Hello(messages.MAGIC, messages.VERSION, messages.Role.KEEPER, "", b"s" * 16, b"x" * 16)

    keeper.session.data_received(bytes(encode_message(hello, 1) + encode_message(messages.Heartbeat(1), 2)))
    await settle()

    assert [type(each) for each in keeper.received()] == [messages.Welcome, messages.Ok]


async def test_a_list_of_very_many_queues_can_be_had() -> None:
    bench = await Bench(MemoryStore()).start()
    client = await bench.client()
    for start in range(0, 8_000, 500):
        specs = [TaskSpec("noop", queue=f"q{start + number:06}") for number in range(500)]
        client.send(messages.Enqueue(bench.new_id(), specs, []))
    await settle(100)
    client.received()

    client.send(messages.ListQueues())
    await settle()

    assert isinstance(client.received()[0], messages.Queues)


async def test_partial_frames_count_against_the_buffer() -> None:
    bench = await Bench(MemoryStore(), connection_bytes_max=2 << 20, buffer_bytes_max=16 << 20).start()
    peers = [Peer(bench) for _ in range(32)]

    for peer in peers:
        peer.session.data_received(HEADER.pack(FRAME_BYTES_MAX, 16, 0, 1) + b"x" * (FRAME_BYTES_MAX - 1))
    await asyncio.sleep(0)

    assert sum(peer.session.conn._reader.pending_bytes for peer in peers if not peer.wire.closed) <= 16 << 20
