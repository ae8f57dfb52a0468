"""A broker under attack, which must still live, serve, and have kept its memory when the test ends."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.acceptance import handlers
from tests.acceptance.fleet import Broker, Fleet
from tq.protocol.codec import encode_message
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Role

GROWTH_MAX = 100 << 20
CLIENT = bytes(encode_message(Hello(MAGIC, VERSIONS.first, Role.CLIENT), 1))


class Guarded:
    """A fleet and its broker, and what is asked of them under attack."""

    def __init__(self, fleet: Fleet, broker: Broker) -> None:
        self.fleet = fleet
        self.broker = broker
        self.address = ("127.0.0.1", fleet.port)

    @contextmanager
    def connected(self, greeting: bytes = b"") -> Iterator[socket.socket]:
        with socket.create_connection(self.address, 10) as connection:
            connection.sendall(greeting)
            yield connection

    @property
    def rss(self) -> int:
        return int(psutil.Process(self.broker.pid).memory_info().rss)

    def serves(self) -> None:
        began = time.monotonic()
        assert self.fleet.bind(handlers.echo).enqueue("other").result(timeout=10) == "other"
        assert time.monotonic() - began < 5
