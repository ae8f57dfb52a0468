"""Hosts that listen and connect; partitions, crashes and drops; one seed is one run."""

import asyncio
import random

import pytest

from tests.testing.test_transport import Peer, later, virtually
from tq.testing.loop import Deadlock, run_virtual
from tq.testing.network import Network
from tq.testing.transport import Conditions


class Hosts:
    """A network where `server` listens; keeps the peers of both sides."""

    def __init__(self, seed: int = 1, conditions: Conditions | None = None) -> None:
        self.network = Network(random.Random(seed), conditions)
        self.servers: list[Peer] = []
        self.clients: list[Peer] = []
        self.listen("server")

    def listen(self, host: str) -> None:
        def accept() -> Peer:
            self.servers.append(Peer())
            return self.servers[-1]

        self.network.listen(host, accept)

    async def connect(self, source: str = "client", destination: str = "server") -> tuple[Peer, Peer]:
        client = Peer()
        await self.network.connect(source, destination, lambda: client)
        self.clients.append(client)
        return client, self.servers[-1]


@virtually
async def test_a_host_connects_to_one_that_listens() -> None:
    hosts = Hosts()

    client, server = await hosts.connect()
    client.transport.write(b"hello")
    await later()

    assert server.received == b"hello"
    assert client.transport.get_extra_info("peername") == ("server", 7766)
    assert server.transport.get_extra_info("peername")[0] == "client"
    (connection,) = hosts.network.connections()
    assert (connection.source, connection.destination) == ("client", "server")


@virtually
async def test_the_server_may_speak_before_the_client_knows() -> None:
    class Greeter(Peer):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"welcome")

    network = Network(random.Random(1))
    network.listen("server", Greeter)
    client = Peer()

    await network.connect("client", "server", lambda: client)
    await later()

    assert client.received == b"welcome"


@virtually
async def test_nobody_listening_refuses() -> None:
    hosts = Hosts()
    hosts.network.stop_listening("server")

    for destination in ("server", "nowhere"):
        with pytest.raises(ConnectionRefusedError, match=destination):
            await hosts.connect(destination=destination)


@virtually
async def test_those_who_are_connected_stay_so_when_the_listening_stops() -> None:
    hosts = Hosts()
    client, server = await hosts.connect()

    hosts.network.stop_listening("server")
    client.transport.write(b"still here")
    await later()

    assert server.received == b"still here"


@virtually
async def test_parted_hosts_hear_nothing_until_they_are_healed() -> None:
    hosts = Hosts()
    client, server = await hosts.connect()
    other, other_server = await hosts.connect("other")

    hosts.network.part("client", "server")
    client.transport.write(b"a")
    server.transport.write(b"b")
    other.transport.write(b"c")
    await later()
    parted = (server.received, client.received, other_server.received)
    hosts.network.heal()
    await later()

    assert parted == (b"", b"", b"c")
    assert (server.received, client.received) == (b"a", b"b")
    assert client.calls == server.calls == ["made"]


@virtually
async def test_a_partition_may_be_one_way_and_of_one_from_all() -> None:
    hosts = Hosts()
    one, one_server = await hosts.connect("one")
    two, two_server = await hosts.connect("two")

    hosts.network.part("server", one_way=True)
    for peer in (one, two, one_server, two_server):
        peer.transport.write(b"x")
    await later()

    assert (one_server.received, two_server.received) == (b"x", b"x")
    assert (one.received, two.received) == (b"", b"")


@virtually
async def test_connecting_across_a_partition_waits_for_it_to_heal() -> None:
    hosts = Hosts()
    hosts.network.part("client", "server")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await hosts.connect()
    asyncio.get_running_loop().call_later(30, hosts.network.heal)
    async with asyncio.timeout(60):
        await hosts.connect()

    assert len(hosts.servers) == 1


@virtually
async def test_a_connection_made_during_a_partition_of_others_is_held_too() -> None:
    hosts = Hosts(conditions=Conditions(latency_s=(1.0, 1.0)))
    connecting = asyncio.create_task(hosts.connect())
    await asyncio.sleep(1.5)

    hosts.network.part("client", "server")
    await later()
    assert not connecting.done()
    hosts.network.heal()
    client, server = await connecting
    client.transport.write(b"after")
    await later()

    assert server.received == b"after"


@virtually
async def test_a_client_that_gives_up_leaves_no_connection_behind() -> None:
    hosts = Hosts(conditions=Conditions(latency_s=(1.0, 1.0)))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await hosts.connect()
    await later()

    assert hosts.servers[0].calls == ["made", "lost"]
    assert hosts.network.connections() == []


@virtually
async def test_a_crashed_host_hears_nothing_and_its_peers_are_reset() -> None:
    hosts = Hosts()
    one, one_server = await hosts.connect("one")
    two, two_server = await hosts.connect("two")

    hosts.network.crash("server")
    await later()

    assert one_server.calls == two_server.calls == ["made"]
    assert isinstance(one.lost, ConnectionResetError)
    assert isinstance(two.lost, ConnectionResetError)
    with pytest.raises(ConnectionRefusedError):
        await hosts.connect("one")
    hosts.listen("server")
    await hosts.connect("one")


@virtually
async def test_a_crashed_client_takes_only_its_own_connections_along() -> None:
    hosts = Hosts()
    one, one_server = await hosts.connect("one")
    _, two_server = await hosts.connect("two")

    hosts.network.crash("one")
    await later()

    assert one.calls == ["made"]
    assert one_server.calls == ["made", "lost"]
    assert two_server.calls == ["made"]
    assert [c.source for c in hosts.network.connections()] == ["two"]
    assert hosts.network.connections("one") == []


@virtually
async def test_a_host_that_crashes_while_it_connects_never_connects() -> None:
    for after_s in (0.5, 1.5):
        hosts = Hosts(conditions=Conditions(latency_s=(1.0, 1.0)))
        connecting = asyncio.create_task(hosts.connect())
        await asyncio.sleep(after_s)

        hosts.network.crash("client")

        with pytest.raises(ConnectionError):
            await connecting
        assert hosts.clients == []


@virtually
async def test_a_server_that_ends_it_at_once_is_heard_by_the_client_in_one_way_or_the_other() -> None:
    class Aborting(Peer):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.abort()

    outcomes = []
    for seed in range(20):
        network = Network(random.Random(seed), Conditions(latency_s=(0.1, 1.0)))
        network.listen("server", Aborting)
        client = Peer()
        try:
            await network.connect("client", "server", lambda client=client: client)  # type: ignore[misc]
        except ConnectionResetError:
            pass
        await later()
        outcomes.append(client.calls)
        assert network.connections() == []

    assert [] in outcomes
    assert ["made", "lost"] in outcomes
    assert all(calls in ([], ["made", "lost"]) for calls in outcomes)


def story(seed: int) -> list[object]:
    """Something happens to everybody, as chance has it; what was heard and when."""
    heard: list[object] = []

    async def main() -> None:
        chance = random.Random(seed)
        hosts = Hosts(seed, Conditions(latency_s=(0.001, 0.5), piece_bytes_max=5, window_bytes=50))
        pairs = [await hosts.connect(f"client {n}") for n in range(3)]
        for turn in range(60):
            client, server = chance.choice(pairs)
            chance.choice([client, server]).transport.write(b"%03d " % turn * 5)
            match chance.randrange(12):
                case 0:
                    hosts.network.connections()[0].drop()
                    pairs.append(await hosts.connect("late"))
                case 1:
                    hosts.network.part("server", one_way=chance.random() < 0.5)
                    await asyncio.sleep(chance.random())
                    hosts.network.heal()
                case _:
                    pass
            await asyncio.sleep(chance.random() / 10)
        await later()
        heard.extend((peer.pieces, peer.calls) for peer in [*hosts.clients, *hosts.servers])
        heard.append(asyncio.get_running_loop().time())

    run_virtual(main())
    return heard


def test_one_seed_is_one_run() -> None:
    assert story(3) == story(3)
    assert story(3) != story(4)


def test_waiting_on_a_partition_that_nobody_heals_is_a_deadlock() -> None:
    async def main() -> None:
        hosts = Hosts()
        hosts.network.part("client", "server")
        await hosts.connect()

    with pytest.raises(Deadlock):
        run_virtual(main())
