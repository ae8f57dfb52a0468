"""The dialer of the simulated network: the first broker that answers, and says why when none does."""

import random

import pytest

from tests.testing.test_transport import Peer, virtually
from tq.client.dialer import Dialer
from tq.core.errors import BrokerUnavailable
from tq.testing.dialer import SimulatedDialer
from tq.testing.network import Network


@virtually
async def test_it_connects_to_the_broker() -> None:
    network = Network(random.Random(1))
    network.listen("broker", Peer)
    dialer: Dialer = SimulatedDialer(network, "client", ["broker"])
    client = Peer()

    transport = await dialer.connect(lambda: client)

    assert client.transport is transport
    assert [c.source for c in network.connections()] == ["client"]


@virtually
async def test_it_passes_over_those_that_do_not_answer() -> None:
    network = Network(random.Random(1))
    network.listen("silent", Peer)
    network.listen("broker", Peer)
    network.part("client", "silent")
    dialer = SimulatedDialer(network, "client", ["silent", "absent", "broker"])

    transport = await dialer.connect(Peer)

    assert transport.get_extra_info("peername") == ("broker", 7766)


@virtually
async def test_each_call_starts_at_the_next_broker() -> None:
    network = Network(random.Random(1))
    network.listen("a", Peer)
    network.listen("b", Peer)
    dialer = SimulatedDialer(network, "client", ["a", "b"])

    reached = [(await dialer.connect(Peer)).get_extra_info("peername")[0] for _ in range(3)]

    assert reached == ["a", "b", "a"]


@virtually
async def test_it_says_of_each_why_it_is_of_no_use() -> None:
    network = Network(random.Random(1))
    network.listen("silent", Peer)
    network.part("client", "silent")
    dialer = SimulatedDialer(network, "client", ["silent", "absent"])

    with pytest.raises(BrokerUnavailable, match="silent: no answer; absent: nobody listens at absent"):
        await dialer.connect(Peer)


def test_it_has_no_blocking_connections() -> None:
    async def main() -> None:
        dialer = SimulatedDialer(Network(random.Random(1)), "client", ["broker"])
        with pytest.raises(BrokerUnavailable, match="no blocking"):
            dialer.connect_blocking(1.0)

    virtually(main)()
