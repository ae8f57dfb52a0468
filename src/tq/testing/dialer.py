"""The way to a broker on the simulated network: a `tq.client.dialer.Dialer` of one host."""

import asyncio
import socket
from collections.abc import Callable, Sequence

from tq.client.dialer import ENDPOINT_TIMEOUT_S
from tq.core.errors import BrokerUnavailable
from tq.testing.network import Network


class SimulatedDialer:
    """Connects from host *source* to the first of some hosts that answers, each call starting at the next one."""

    def __init__(self, network: Network, source: str, brokers: Sequence[str]) -> None:
        self._network = network
        self._source = source
        self._brokers = list(brokers)
        self._next = 0
        self._is_dead = False

    def die(self) -> None:
        """Connect no more: the process that dials is dead, whatever its code still does in this loop."""
        self._is_dead = True

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect to the first host that answers within three seconds.

        Raises:
            BrokerUnavailable: None does.
        """
        if self._is_dead:
            raise BrokerUnavailable("the dead dial nobody")
        first = self._next
        self._next = (first + 1) % len(self._brokers)
        failures = []
        for broker in self._brokers[first:] + self._brokers[:first]:
            try:
                async with asyncio.timeout(ENDPOINT_TIMEOUT_S):
                    return await self._network.connect(self._source, broker, factory)
            except TimeoutError:
                failures.append(f"{broker}: no answer")
            except ConnectionError as error:
                failures.append(f"{broker}: {error}")
        raise BrokerUnavailable("; ".join(failures))

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Refuse: nothing may block a virtual loop, and there are no sockets.

        Raises:
            BrokerUnavailable: Always.
        """
        raise BrokerUnavailable("a simulated network has no blocking connections; use the asynchronous ones")
