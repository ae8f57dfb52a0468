"""The way from a client to a broker: a `Dialer` makes connections, whatever they run on."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

from tq.core.errors import BrokerUnavailable, ConfigError
from tq.protocol.endpoints import Endpoint, parse_endpoints

ENDPOINT_TIMEOUT_S = 3.0
"""How long one address may take to answer before the next is tried."""

# A machine that vanished without a word is noticed within half a minute, by the kernel: no timer of ours.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}


class Dialer(Protocol):
    """Makes one connection to a broker at each call; the caller waits between the calls."""

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect the protocol that *factory* returns.

        Raises:
            BrokerUnavailable: Nothing answers; the text says where, and the last error.
        """

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Return a connected stream socket.

        Raises:
            BrokerUnavailable: Nothing answers within *timeout_s*.
        """


class TcpDialer:
    """Connects by TCP to the first of some addresses that answers.

    Each call starts at the address after the one where the last call ended: the peer of
    a broker that accepts connections and is of no use gets to the others too.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ConfigError("a broker's address is needed; got none")
        self._endpoints = list(endpoints)
        self._next = 0

    @classmethod
    def of(cls, url: str) -> "TcpDialer":
        """Return the dialer of ``tq://host:port[,host:port]``.

        Raises:
            ConfigError: *url* is not of this form.
        """
        return cls(parse_endpoints(url))

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect to the first address that answers within three seconds."""
        loop = asyncio.get_running_loop()
        failures = []
        for endpoint in self._in_turn():
            try:
                async with asyncio.timeout(ENDPOINT_TIMEOUT_S):
                    transport, _ = await loop.create_connection(factory, endpoint.host, endpoint.port)
            except OSError as error:
                failures.append(f"{endpoint}: {_reason(error)}")
                continue
            _tune(transport.get_extra_info("socket"))
            return transport
        raise BrokerUnavailable("; ".join(failures))

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Connect to the first address that answers within three seconds, or its share of *timeout_s*."""
        share_s = min(ENDPOINT_TIMEOUT_S, timeout_s / len(self._endpoints))
        failures = []
        for endpoint in self._in_turn():
            try:
                connected = socket.create_connection(endpoint, share_s)
            except OSError as error:
                failures.append(f"{endpoint}: {_reason(error)}")
                continue
            _tune(connected)
            return connected
        raise BrokerUnavailable("; ".join(failures))

    def _in_turn(self) -> list[Endpoint]:
        first = self._next
        self._next = (first + 1) % len(self._endpoints)
        return self._endpoints[first:] + self._endpoints[:first]


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    # The names of unknown hosts have numbers of their own; what asyncio adds to the others is in the address already.
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _tune(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)  # Linux has them all, other systems some
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
