"""Peers that break the rules, over a real socket: the broker lives, serves others, and its memory stays bounded."""

import os
import random
import socket
import struct
import time
from contextlib import ExitStack, suppress

import msgspec

from tests.acceptance import handlers
from tests.acceptance.fleet import until
from tests.acceptance.guarded import CLIENT, Guarded
from tq.core.outcome import Done
from tq.core.worker import WorkerInfo
from tq.protocol import messages
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import HEADER, FrameReader, encode_frame
from tq.protocol.messages import MAGIC, VERSIONS, Error, Hello, QueueWeight, Role, Type, Welcome

MIB = 1 << 20


def everything(connection: socket.socket) -> list[msgspec.Struct]:
    """Return all that comes until the other side closes."""
    reader = FrameReader()
    frames = []
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            frames += reader.feed(data)
    return [decode_message(frame.kind, frame.body) for frame in frames]


def refusals(connection: socket.socket) -> list[str]:
    return [message.code for message in everything(connection) if isinstance(message, Error)]


def test_random_bytes_are_answered_with_an_error_or_the_end(guarded: Guarded) -> None:
    draw = random.Random(7)
    for number in range(200):
        with guarded.connected(CLIENT if number % 2 else b"") as connection:
            with suppress(OSError):  # the broker may have closed it by then: not all of its ways are a ConnectionError
                connection.sendall(draw.randbytes(draw.choice([1, 9, 10, 11, 500, 70_000])))
                connection.shutdown(socket.SHUT_WR)
            answers = everything(connection)
            assert all(isinstance(answer, Welcome | Error) for answer in answers)


def test_flipped_bits_in_real_messages_harm_nobody(guarded: Guarded) -> None:
    draw = random.Random(8)
    info = WorkerInfo("w", "h", 1, "async", 1, ["echo"])
    hello = Hello(MAGIC, VERSIONS.first, Role.WORKER, "", os.urandom(16), os.urandom(16), info)
    requests: list[tuple[bytes, list[msgspec.Struct]]] = [
        (
            CLIENT,
            [messages.Get([b"x" * 16]), messages.ListTasks("ready"), messages.Cancel([b"x" * 16]), messages.Ping()],
        ),
        (
            bytes(encode_message(hello, 1)),
            [messages.Subscribe([QueueWeight("q", 1)]), messages.Settle([Done(1, 0, None)])],
        ),
    ]
    for number in range(300):
        greeting, sent = requests[number % 2]
        frame = bytearray(encode_message(draw.choice(sent), 2))
        frame[draw.randrange(4, len(frame))] ^= 1 << draw.randrange(8)
        with guarded.connected(greeting + bytes(frame)) as connection:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            everything(connection)


def test_every_truncation_of_a_conversation_harms_nobody(guarded: Guarded) -> None:
    conversation = CLIENT + bytes(encode_message(messages.Ping(), 2))
    for length in range(len(conversation)):
        with guarded.connected(conversation[:length]) as connection:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            everything(connection)


BROKEN_RULES: list[tuple[bytes, str]] = [
    (HEADER.pack(0xFFFF_FFFF, Type.HELLO, 0, 1), "frame_too_large"),
    (HEADER.pack(2 * MIB, Type.HELLO, 0, 1), "frame_too_large"),
    (HEADER.pack(0, Type.HELLO, 0x80, 1), "protocol_violation"),
    (encode_frame(Type.PING, 1, b"\x90"), "protocol_violation"),
    (encode_frame(200, 1, b"\x90"), "protocol_violation"),
    (bytes(encode_message(Hello(b"http", VERSIONS.first, Role.CLIENT), 1)), "protocol_violation"),
    (bytes(encode_message(Hello(MAGIC, 99, Role.CLIENT), 1)), "unsupported_version"),
    (bytes(encode_message(Hello(MAGIC, VERSIONS.first, Role.WORKER), 1)), "protocol_violation"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "frame_too_large"),
    (CLIENT + CLIENT, "protocol_violation"),
    (CLIENT + bytes(encode_message(messages.Settle([Done(1, 0, None)]), 2)), "protocol_violation"),
    # Bodies that promise more than they hold, and nest deeper than anyone reads.
    (CLIENT + encode_frame(Type.GET, 2, b"\x91\xdd\xff\xff\xff\xff"), "protocol_violation"),
    (CLIENT + encode_frame(Type.GET, 2, b"\x91\xc6\xff\xff\xff\xff"), "protocol_violation"),
    (CLIENT + encode_frame(Type.ENQUEUE, 2, b"\x91" * 500_000), "protocol_violation"),
]


def test_a_broken_rule_is_named_and_ends_the_connection(guarded: Guarded) -> None:
    for sent, code in BROKEN_RULES:
        with guarded.connected(sent) as connection:
            assert refusals(connection) == [code], sent[:40]


def test_who_never_says_hello_is_shown_out(guarded: Guarded) -> None:
    with ExitStack() as stack:
        began = time.monotonic()
        silent = stack.enter_context(guarded.connected())
        stalled = stack.enter_context(guarded.connected(CLIENT[: len(CLIENT) // 2]))
        for connection in (silent, stalled):
            connection.settimeout(20)
            assert refusals(connection) == ["protocol_violation"]
        assert 8 < time.monotonic() - began < 18


def test_half_a_frame_that_never_ends_holds_nobody_up(guarded: Guarded) -> None:
    half = HEADER.pack(MIB, Type.ENQUEUE, 0, 2) + bytes(MIB // 2)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(guarded.connected(CLIENT + half))

        for _ in range(10):
            guarded.serves()


def test_five_hundred_connections_that_come_and_go_leave_nothing(guarded: Guarded) -> None:
    def connections() -> int:
        return guarded.fleet.app.client.stats().connections

    # The worker's, its keeper's and our own: the keeper's may come a moment later than the first task is done.
    before = 3
    until(lambda: connections() == before, what="who belongs there has come")
    with ExitStack() as stack:
        for number in range(500):
            stack.enter_context(guarded.connected(CLIENT if number % 2 else CLIENT[:7]))
        until(lambda: connections() >= before + 500)
        guarded.serves()
    until(lambda: connections() == before, what="all are gone")
    for _ in range(500):
        with guarded.connected(CLIENT) as connection:
            # The other end gets a reset, in the middle of whatever it does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: connections() == before, what="all are gone")


def test_who_asks_for_much_and_reads_nothing_is_not_stored_for(guarded: Guarded) -> None:
    fleet = guarded.fleet
    handles = fleet.bind(handlers.echo).enqueue_many([("x" * 100_000,) for _ in range(8)])
    for handle in handles:
        handle.result(timeout=20)
    get = bytes(encode_message(messages.Get([handle.task_id for handle in handles]), 2))
    with ExitStack() as stack:
        deaf = [stack.enter_context(guarded.connected(CLIENT)) for _ in range(10)]
        for connection in deaf:
            connection.settimeout(0.2)
            # 200 answers of 0.8 MB, if the broker let itself be driven so far.
            with suppress(TimeoutError, ConnectionError):
                for correlation in range(2, 202):
                    connection.sendall(get[:6] + correlation.to_bytes(4, "big") + get[10:])
        for _ in range(5):
            guarded.serves()


def test_who_sends_much_and_reads_nothing_is_not_stored_for(guarded: Guarded) -> None:
    ping = b"".join(bytes(encode_message(messages.Ping(), correlation)) for correlation in range(2, 50_002))
    with ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(guarded.connected(CLIENT))
            connection.settimeout(0.5)
            with suppress(TimeoutError, ConnectionError):
                for _ in range(20):
                    connection.sendall(ping)
            guarded.serves()


def test_a_stranger_cannot_take_over_a_worker(guarded: Guarded) -> None:
    (worker,) = guarded.fleet.app.client.workers()
    hello = Hello(MAGIC, VERSIONS.first, Role.WORKER, "", worker.session, os.urandom(16), worker.info)
    keeper = Hello(MAGIC, VERSIONS.first, Role.KEEPER, "", worker.session, os.urandom(16))

    for stranger in (hello, keeper):
        with guarded.connected(bytes(encode_message(stranger, 1))) as connection:
            assert refusals(connection) == ["session_unknown"]

    assert [view.session for view in guarded.fleet.app.client.workers()] == [worker.session]
