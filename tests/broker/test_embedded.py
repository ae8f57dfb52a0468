"""The embedded broker, over its real socket pairs."""

import socket

import pytest

from tq.broker.embedded import open_memory
from tq.core.errors import StoreError
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Ping, Pong, Role, Welcome


def ask(sock: socket.socket, *messages: object) -> list[object]:
    """Send requests, return as many replies."""
    for correlation, message in enumerate(messages, 1):
        sock.sendall(encode_message(message, correlation))  # type: ignore[arg-type]
    reader, replies = FrameReader(), list[object]()
    sock.settimeout(10)
    while len(replies) < len(messages):
        data = sock.recv(65_536)
        assert data, "the broker closed the connection"
        replies += [decode_message(frame.kind, frame.body) for frame in reader.feed(data)]
    return replies


def test_it_speaks_the_protocol_on_every_connection_it_gives() -> None:
    broker = open_memory()
    try:
        with broker.connect() as first, broker.connect() as second:
            replies = [ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT), Ping()) for sock in (first, second)]
    finally:
        broker.close()

    assert [[type(reply) for reply in each] for each in replies] == [[Welcome, Pong]] * 2


def test_close_ends_its_connections_and_may_be_repeated() -> None:
    broker = open_memory()
    sock = broker.connect()
    ask(sock, Hello(MAGIC, VERSIONS.first, Role.CLIENT))

    broker.close()
    broker.close()

    with sock:
        while sock.recv(65_536):
            pass  # the farewell, then the end
    with pytest.raises(StoreError, match="closed"):
        broker.connect()
