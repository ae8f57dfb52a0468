"""An address at which something answers that is no broker."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tq.client.async_client import AsyncClient
from tq.client.dialer import TcpDialer
from tq.client.sync_client import SyncClient
from tq.core.errors import BrokerUnavailable
from tq.core.task import Task, TaskSpec

HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
SSH = b"SSH-2.0-OpenSSH_9.6\r\n"


@pytest.fixture(params=[HTTP, SSH], ids=["http", "ssh"])
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a service that has another protocol."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connected, _ = listening.accept()
                with connected:
                    connected.sendall(request.param)
                    connected.recv(1 << 16)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"tq://127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_a_stranger_is_a_broker_that_is_not_there(stranger: str) -> None:
    with (
        SyncClient(TcpDialer.of(stranger), connect_timeout_s=0.2) as client,
        pytest.raises(BrokerUnavailable, match=r"what answers there is no tq-broker \("),
    ):
        client.enqueue(Task(TaskSpec("a"), b""))


def test_a_stranger_is_a_broker_that_is_not_there_to_coroutines_too(stranger: str) -> None:
    async def enqueue() -> None:
        async with AsyncClient(TcpDialer.of(stranger), connect_timeout_s=0.2) as client:
            await client.enqueue(Task(TaskSpec("a"), b""))

    with pytest.raises(BrokerUnavailable, match=r"what answers there is no tq-broker \("):
        asyncio.run(enqueue())
