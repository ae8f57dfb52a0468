"""Dialling by TCP: the first address that answers, and what is said when none does."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tq.client.dialer import TcpDialer
from tq.core.errors import BrokerUnavailable, ConfigError
from tq.protocol.endpoints import Endpoint


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def at(listener: socket.socket) -> Endpoint:
    return Endpoint(*listener.getsockname())


def test_threads_get_the_first_address_that_answers(listener: socket.socket, closed_port: int) -> None:
    dialer = TcpDialer([Endpoint("127.0.0.1", closed_port), at(listener)])

    with dialer.connect_blocking(5.0) as connected:
        assert connected.getpeername() == at(listener)
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_loops_get_the_first_address_that_answers(listener: socket.socket, closed_port: int) -> None:
    dialer = TcpDialer([Endpoint("127.0.0.1", closed_port), at(listener)])

    transport = await dialer.connect(asyncio.Protocol)

    assert transport.get_extra_info("peername") == at(listener)
    assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    transport.abort()
    await asyncio.sleep(0)


def test_each_call_starts_at_the_next_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        dialer = TcpDialer([at(one), at(other)])

        reached = []
        for _ in range(3):
            with dialer.connect_blocking(5.0) as connected:
                reached.append(connected.getpeername())

        assert reached == [at(one), at(other), at(one)]


def test_an_error_names_every_address_and_why(closed_port: int) -> None:
    dialer = TcpDialer([Endpoint("127.0.0.1", closed_port), Endpoint("no-such-host.invalid", 7766)])

    with pytest.raises(BrokerUnavailable) as caught:
        dialer.connect_blocking(5.0)

    refused, unknown = str(caught.value).split("; ")
    assert refused == f"127.0.0.1:{closed_port}: Connection refused"
    assert unknown.startswith("no-such-host.invalid:7766: ")


async def test_loops_are_told_the_same(closed_port: int) -> None:
    with pytest.raises(BrokerUnavailable, match=rf"^127\.0\.0\.1:{closed_port}: Connection refused$"):
        await TcpDialer.of(f"tq://127.0.0.1:{closed_port}").connect(asyncio.Protocol)


def test_an_address_is_needed() -> None:
    with pytest.raises(ConfigError, match="got none"):
        TcpDialer([])
