"""A broker under pressure: peers that do not read, floods, huge frames, a disk that is slow, clocks that jump.

`ACCEPTANCE_LENGTH` makes them that many times as long; `make chaos` does.
"""

import os
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack
from itertools import count

import msgspec
import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import Fleet, until
from tests.acceptance.guarded import CLIENT, Guarded
from tests.acceptance.load import Producer, check_all_ended_as_meant, check_each_ended_as_meant, executed
from tq.core.ids import IdMaker
from tq.core.task import NewTask, TaskSpec
from tq.core.worker import WorkerInfo
from tq.protocol import messages
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import HEADER, Frame, FrameReader
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Role, Type

LENGTH = int(os.environ.get("ACCEPTANCE_LENGTH", "1"))
LEASE = {"lease_ms": 1_500, "heartbeat_ms": 300}
CONNECTIONS = 2_000
ROUND_S_MAX = 10.0
HOUR_MS = 3_600_000


def worker_hello(*names: str) -> bytes:
    info = WorkerInfo("deaf", "h", 1, "async", 1, list(names))
    return bytes(encode_message(Hello(MAGIC, VERSIONS.first, Role.WORKER, "", os.urandom(16), os.urandom(16), info), 1))


# ------------------------------------------------------------------------------------------- peers


def test_workers_that_stop_reading_keep_nothing_from_the_others(fleet: Fleet) -> None:
    broker = fleet.broker(**LEASE)
    guarded = Guarded(fleet, broker)
    before = guarded.rss
    echo = fleet.bind(handlers.echo)
    asks = bytes(encode_message(messages.Subscribe([messages.QueueWeight("default", 1)]), 2)) + bytes(
        encode_message(messages.Window(20_000, 64 << 20), 0)
    )
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(guarded.connected(worker_hello("echo") + asks))
        until(lambda: len(fleet.app.client.workers()) == 5, what="the deaf ones are workers")
        for _ in range(20 * LENGTH):
            echo.enqueue_many([("x" * 100_000,) for _ in range(50)])
        assert fleet.queue().running > 0, "what was not read is on its way"
        fleet.worker()

        until(fleet.is_drained, 60, what="all is done by the one that reads")
        assert guarded.rss - before < 200 << 20
        guarded.serves()
    assert fleet.queue().completed_total == 1_000 * LENGTH + 1


def test_two_thousand_connections_leave_room_for_who_works(guarded: Guarded) -> None:
    def connections() -> int:
        return guarded.fleet.app.client.stats().connections

    before = connections()
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            # Some say nothing, some half a word, some greet and then say nothing, some begin a long frame.
            greeting = [b"", CLIENT[:7], CLIENT, CLIENT + HEADER.pack(1 << 20, Type.ENQUEUE, 0, 2)][number % 4]
            stack.enter_context(guarded.connected(greeting))
        until(lambda: connections() >= before + CONNECTIONS // 2)
        for _ in range(10 * LENGTH):
            guarded.serves()

        # Half of them have said hello, and of those one half stays in the middle of a frame for too long.
        until(lambda: connections() <= before + CONNECTIONS // 2, what="those who said no hello are shown out")
        guarded.serves()
    until(lambda: connections() <= before, what="all are gone")


def test_a_hundred_small_clients_are_served_beside_one_with_huge_frames(guarded: Guarded) -> None:
    fleet = guarded.fleet
    over = threading.Event()
    rounds: list[float] = []
    huge = threading.Thread(target=_huge_frames, args=(guarded, over))
    huge.start()
    try:
        until_s = time.monotonic() + 3 * LENGTH
        with ExitStack() as stack:
            crowd = [Conversation(stack.enter_context(guarded.connected(CLIENT))) for _ in range(100)]
            for correlation in count(2):
                began = time.monotonic()
                for client in crowd:
                    client.say(messages.Ping(), correlation)
                assert all(isinstance(client.hear(), messages.Pong) for client in crowd)
                rounds.append(time.monotonic() - began)
                if time.monotonic() > until_s:
                    break
        assert len(rounds) >= 3 * LENGTH
        # A hang is looked for, not a slow machine.
        assert max(rounds) < ROUND_S_MAX
    finally:
        over.set()
        huge.join(30)
    assert not huge.is_alive()
    assert fleet.queue("huge").ready > 0


def _huge_frames(guarded: Guarded, over: threading.Event) -> None:
    """Enqueue frames of 400 KB, several on their way at a time, until *over*."""
    ids = IdMaker(lambda: time.time_ns() // 1_000_000, os.urandom)
    with guarded.connected(CLIENT) as connection:
        client = Conversation(connection)
        numbers = count(2)
        while not over.is_set():
            for _ in range(4):
                tasks = [NewTask(ids.make(), 0, bytes(200_000)) for _ in range(2)]
                client.say(messages.Enqueue(ids.make(), [TaskSpec("huge", "huge")], tasks), next(numbers))
            for _ in range(4):
                assert isinstance(client.hear(), messages.Enqueued)


class Conversation:
    """One connection of a client that says and hears messages."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        self._connection = connection
        self._reader = FrameReader()
        self._heard: deque[Frame] = deque()
        assert isinstance(self.hear(), messages.Welcome)

    def say(self, message: msgspec.Struct, correlation: int) -> None:
        self._connection.sendall(encode_message(message, correlation))

    def hear(self) -> msgspec.Struct:
        """Return the next message, once it is there."""
        while not self._heard:
            data = self._connection.recv(65_536)
            assert data, "the broker has closed"
            self._heard += self._reader.feed(data)
        frame = self._heard.popleft()
        return decode_message(frame.kind, frame.body)


# ------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("hours", [48, -48])
def test_a_clock_that_jumps_loses_nothing_and_takes_nothing_away(fleet: Fleet, hours: int) -> None:
    fleet.broker("tests.acceptance.odd_broker", **LEASE)
    workers = [fleet.worker(name=f"w{number}") for number in range(2)]
    running = fleet.bind(handlers.gated).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") and running.status().started)
    producer = Producer(fleet.url, fleet.bind(handlers.work), seed=hours)

    producer.start()
    for offset in (0, hours, 0, -hours) * LENGTH:
        time.sleep(1)
        # As one: the broker may be reading it.
        (fleet.directory / "next").write_text(str(offset * HOUR_MS))
        (fleet.directory / "next").replace(fleet.offset_path)
    time.sleep(2)
    producer.stop()
    for worker in workers:
        (fleet.directory / worker.name).touch()

    assert running.result(timeout=20) in {"w0", "w1"}
    until(fleet.is_drained)
    view = running.status()
    assert (view.losses, view.attempts, fleet.queue().lost_total, fleet.executions("g")) == (0, 0, 0, 1)
    assert len(producer.acknowledged) > 200
    check_each_ended_as_meant(fleet, producer, executed(fleet))


@pytest.mark.parametrize("whom", ["broker", "both"])
def test_who_was_suspended_for_several_leases_goes_on_where_it_was(fleet: Fleet, whom: str) -> None:
    broker = fleet.broker(**LEASE)
    worker = fleet.worker(name="w")
    producer = Producer(fleet.url, fleet.bind(handlers.work), seed=3)
    producer.start()
    time.sleep(1)

    victims = [broker] if whom == "broker" else [worker, broker]
    for victim in victims:
        victim.suspend()
    time.sleep(4 * LENGTH)
    for victim in victims:
        victim.resume()
    time.sleep(1)
    producer.stop()

    until(fleet.is_drained)
    assert len(producer.acknowledged) > 200
    check_all_ended_as_meant(fleet, producer)
    assert worker.is_alive
    # The worker lived all the time, and the broker could not hear it.
    assert fleet.queue().lost_total == 0
