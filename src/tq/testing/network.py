"""A network in memory: hosts that listen and connect, and what can go wrong between them.

Hosts are known by their names. Faults come from outside, by the methods of `Network`;
what is left to chance (delays, pieces, how much a broken connection loses) is drawn
from the `random.Random` that it is given, so that one seed is one run.

Invariant: the network holds every connection of which an end is alive; a host that has
crashed hears nothing of any of them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable

from tq.testing.transport import Conditions, Lane, SimulatedTransport

ProtocolFactory = Callable[[], asyncio.Protocol]


class Connection:
    """Two ends, named by their hosts, and the lanes between them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        chance: random.Random,
        conditions: Conditions,
        source: tuple[str, int],
        destination: tuple[str, int],
    ) -> None:
        self.source, self.destination = source[0], destination[0]
        self._loop = loop
        self._chance = chance
        self._conditions = conditions
        self.there, self.back = Lane(loop, chance, conditions), Lane(loop, chance, conditions)
        self.client = SimulatedTransport(loop, self.there, {"sockname": source, "peername": destination})
        self.server = SimulatedTransport(loop, self.back, {"sockname": destination, "peername": source})
        self.there.join(self.client, self.server)
        self.back.join(self.server, self.client)
        self.client.join(self.back)
        self.server.join(self.there)

    @property
    def is_over(self) -> bool:
        """Whether both ends are gone."""
        return self.client.is_lost and self.server.is_lost

    def drop(self) -> None:
        """Break it: each end loses some of what is on its way and hears of the end, each in its own time."""
        for lane, end in ((self.there, self.server), (self.back, self.client)):
            lane.cut()
            delay_s = self._chance.uniform(*self._conditions.latency_s)
            self._loop.call_later(delay_s, end.lose, ConnectionResetError("the network dropped the connection"))


class Network:
    """Joins hosts; to be made within the running loop."""

    def __init__(self, chance: random.Random, conditions: Conditions | None = None) -> None:
        self.conditions = conditions or Conditions()
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[str, ProtocolFactory] = {}
        # A dict, for its order: what chance picks from must not hang on addresses in memory.
        self._connections: dict[Connection, None] = {}
        self._parted: set[tuple[str, str]] = set()
        self._crashes: Counter[str] = Counter()
        self._healed = asyncio.Event()
        self._ports = 0

    def listen(self, host: str, factory: ProtocolFactory) -> None:
        """Let *host* accept connections, each with a protocol of *factory*'s; it listens to one port."""
        assert host not in self._listeners, f"{host} listens already"
        self._listeners[host] = factory

    def stop_listening(self, host: str) -> None:
        """Refuse new connections to *host*; those it has go on."""
        self._listeners.pop(host, None)

    async def connect(self, source: str, destination: str, factory: ProtocolFactory) -> SimulatedTransport:
        """Connect a protocol of *factory*'s on host *source* to *destination*.

        While the two are parted it waits; the caller has the deadline.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            ConnectionError: One of the two crashed meanwhile, or the other has ended it already.
        """
        lives = self._crashes[source]
        await self._travel(source, destination)
        if self._crashes[source] != lives:
            raise ConnectionAbortedError(f"{source} has crashed")
        accept = self._listeners.get(destination)
        if accept is None:
            await self._travel(destination, source)
            raise ConnectionRefusedError(f"nobody listens at {destination}")
        self._ports += 1
        connection = Connection(
            self._loop, self._chance, self.conditions, (source, 40_000 + self._ports), (destination, 7766)
        )
        self._forget_those_that_are_over()
        self._connections[connection] = None
        self._hold_lanes([connection])
        connection.server.open(accept())
        try:
            await self._travel(destination, source)
        except asyncio.CancelledError:
            connection.client.abort()
            raise
        if connection.client.is_lost:
            raise ConnectionResetError(f"{destination} ended the connection at once")
        connection.client.open(factory())
        return connection.client

    def connections(self, host: str | None = None) -> list[Connection]:
        """Return the connections that have an end alive, or those of one host, oldest first."""
        self._forget_those_that_are_over()
        return [c for c in self._connections if host is None or host in (c.source, c.destination)]

    def part(self, host: str, other: str | None = None, *, one_way: bool = False) -> None:
        """Let no bytes pass from *host* to *other*, nor back unless *one_way*; without *other*, to and from all.

        Nobody is told: connections stay, and what is sent waits for `heal`, as with a cable
        pulled out. Whoever does not want to wait drops the connection.
        """
        others = [other] if other is not None else [name for name in self._hosts() if name != host]
        for name in others:
            self._parted.add((host, name))
            if not one_way:
                self._parted.add((name, host))
        self._hold_lanes(self._connections)

    def heal(self) -> None:
        """Let everybody reach everybody again; what waited arrives soon."""
        self._parted.clear()
        self._hold_lanes(self._connections)
        self._healed.set()
        self._healed.clear()

    def crash(self, host: str) -> None:
        """End a host as kill -9 ends a process: it hears nothing of it, its peers find their connections reset.

        What it had sent may still arrive, in part. It may listen again under its name.
        """
        self._crashes[host] += 1
        self._listeners.pop(host, None)
        for connection in self.connections(host):
            for name, end in ((connection.source, connection.client), (connection.destination, connection.server)):
                if name == host:
                    end.vanish()

    async def _travel(self, source: str, destination: str) -> None:
        is_there = False
        while not is_there:
            while (source, destination) in self._parted:
                await self._healed.wait()
            await asyncio.sleep(self._chance.uniform(*self.conditions.latency_s))
            # What was on its way when the hosts were parted is sent anew.
            is_there = (source, destination) not in self._parted

    def _hosts(self) -> list[str]:
        named = [name for c in self._connections for name in (c.source, c.destination)]
        return list(dict.fromkeys([*self._listeners, *named]))

    def _hold_lanes(self, connections: Iterable[Connection]) -> None:
        for connection in connections:
            ends = (connection.source, connection.destination)
            for lane, way in ((connection.there, ends), (connection.back, ends[::-1])):
                if way in self._parted:
                    lane.hold()
                else:
                    lane.release()

    def _forget_those_that_are_over(self) -> None:
        for connection in [c for c in self._connections if c.is_over]:
            del self._connections[connection]
