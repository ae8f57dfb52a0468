"""One simulated connection: what is received is a prefix of what was written, and flow control is the real one's."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import wraps

import pytest
from hypothesis import given, strategies as st

from tq.testing.loop import run_virtual
from tq.testing.network import Connection
from tq.testing.transport import Conditions, SimulatedTransport

LONG_S = 10.0


class Peer(asyncio.Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.transport: SimulatedTransport
        self.pieces: list[bytes] = []
        self.calls: list[str] = []
        self.lost: Exception | None = None
        self.stays_after_eof = False

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, SimulatedTransport)
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.stays_after_eof

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost = exc


def connected(conditions: Conditions | None = None, seed: int = 1) -> tuple[Connection, Peer, Peer]:
    """A connection with a peer at each end."""
    connection = Connection(
        asyncio.get_running_loop(), random.Random(seed), conditions or Conditions(), ("client", 1), ("server", 2)
    )
    client, server = Peer(), Peer()
    connection.server.open(server)
    connection.client.open(client)
    return connection, client, server


def virtually(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an asynchronous test on a virtual loop."""

    @wraps(test)
    def run() -> None:
        async def main() -> None:
            await test()

        run_virtual(main())

    # pytest looks through the wrapper for fixtures otherwise; there are none.
    del run.__wrapped__
    return run


async def later() -> None:
    await asyncio.sleep(LONG_S)


@virtually
async def test_bytes_arrive_in_order_after_the_latency() -> None:
    _, client, server = connected(Conditions(latency_s=(1.0, 2.0)))

    client.transport.write(b"one ")
    client.transport.write(b"two")
    server.transport.write(b"three")
    await asyncio.sleep(0.99)
    early = client.received + server.received
    await asyncio.sleep(1.02)

    assert early == b""
    assert server.received == b"one two"
    assert client.received == b"three"


@virtually
async def test_what_is_written_is_copied_at_once() -> None:
    _, client, server = connected()
    data = bytearray(b"before")

    client.transport.write(data)
    data[:] = b"after!"
    await later()

    assert server.received == b"before"


@virtually
async def test_writes_are_cut_into_pieces_and_some_are_joined() -> None:
    _, client, server = connected(Conditions(piece_bytes_max=4))

    client.transport.write(bytes(range(200)))
    await later()

    assert server.received == bytes(range(200))
    assert len(server.pieces) > 20
    assert {len(piece) for piece in server.pieces} >= {1, 2, 3, 4}
    assert max(len(piece) for piece in server.pieces) > 4


@virtually
async def test_writelines_writes_all_of_them() -> None:
    _, client, server = connected()

    client.transport.writelines([b"a", bytearray(b"b"), b"c"])
    await later()

    assert server.received == b"abc"


@virtually
async def test_a_reader_that_pauses_gets_the_rest_when_it_resumes() -> None:
    _, client, server = connected()
    server.transport.pause_reading()

    client.transport.write(b"held")
    await later()
    held = server.received
    was_reading = server.transport.is_reading()
    server.transport.resume_reading()
    await later()

    assert (held, was_reading) == (b"", False)
    assert (server.received, server.transport.is_reading()) == (b"held", True)


@virtually
async def test_a_writer_is_paused_when_the_reader_is_slow_and_resumed_after() -> None:
    _, client, server = connected(Conditions(window_bytes=1_000))
    client.transport.set_write_buffer_limits(high=500, low=100)
    server.transport.pause_reading()

    client.transport.write(bytes(1_500))
    at_the_mark = list(client.calls)
    client.transport.write(b"x")
    over = list(client.calls)
    assert client.transport.get_write_buffer_size() == 501
    server.transport.resume_reading()
    await later()

    assert at_the_mark == ["made"]
    assert over == ["made", "pause"]
    assert client.calls == ["made", "pause", "resume"]
    assert client.transport.get_write_buffer_size() == 0
    assert len(server.received) == 1_501


@virtually
async def test_the_marks_are_asyncios() -> None:
    _, client, _ = connected()
    transport = client.transport

    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    transport.set_write_buffer_limits(low=100)
    assert transport.get_write_buffer_limits() == (100, 400)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    with pytest.raises(ValueError, match="low mark"):
        transport.set_write_buffer_limits(high=1, low=2)


@virtually
async def test_closing_delivers_everything_then_ends_both_sides() -> None:
    _, client, server = connected(Conditions(window_bytes=100, piece_bytes_max=7))

    client.transport.write(bytes(1_000))
    client.transport.close()
    client.transport.write(b"too late")
    assert client.transport.is_closing()
    await later()

    assert server.received == bytes(1_000)
    assert client.calls == ["made", "lost"]
    assert server.calls == ["made", "eof", "lost"]
    assert (client.lost, server.lost) == (None, None)


@virtually
async def test_a_closed_side_hears_nothing_and_does_not_hold_up_the_other() -> None:
    _, client, server = connected(Conditions(window_bytes=100))
    server.transport.write(bytes(10_000))

    client.transport.close()
    await later()

    assert client.received == b""
    assert server.transport.get_write_buffer_size() == 0
    assert server.calls[-1] == "lost"


@virtually
async def test_one_side_may_end_its_bytes_and_go_on_reading() -> None:
    _, client, server = connected()
    server.stays_after_eof = True

    client.transport.write(b"question")
    assert client.transport.can_write_eof()
    client.transport.write_eof()
    client.transport.write(b"too late")
    await later()
    server.transport.write(b"answer")
    server.transport.close()
    await later()

    assert server.received == b"question"
    assert client.received == b"answer"
    assert client.calls == ["made", "eof", "lost"]
    assert server.calls == ["made", "eof", "lost"]


@virtually
async def test_aborting_resets_the_other_side_which_has_a_prefix() -> None:
    lengths = set()
    for seed in range(30):
        _, client, server = connected(Conditions(piece_bytes_max=3, window_bytes=25), seed)
        client.transport.write(bytes(range(30)))
        client.transport.abort()
        client.transport.abort()
        await later()

        assert bytes(range(25)).startswith(server.received)
        lengths.add(len(server.received))
        assert (client.calls, client.lost) == (["made", "lost"], None)
        assert client.transport.get_write_buffer_size() == 0
        assert server.calls == ["made", "lost"]
        assert isinstance(server.lost, ConnectionResetError)
    assert {0, 25} <= lengths
    assert len(lengths) > 5


@virtually
async def test_a_reset_reaches_one_who_does_not_read() -> None:
    _, client, server = connected()
    server.transport.pause_reading()
    client.transport.write(b"unread")

    client.transport.abort()
    await later()

    assert server.received == b""
    assert server.calls == ["made", "lost"]


@virtually
async def test_dropping_ends_both_sides_with_an_error_and_both_have_a_prefix() -> None:
    lengths = set()
    for seed in range(30):
        connection, client, server = connected(Conditions(piece_bytes_max=3), seed)
        client.transport.write(bytes(range(20)))
        server.transport.write(bytes(range(20)))
        connection.drop()
        client.transport.write(b"written to nobody")
        await later()

        for peer in (client, server):
            assert bytes(range(20)).startswith(peer.received)
            assert peer.calls == ["made", "lost"]
            assert isinstance(peer.lost, ConnectionResetError)
        lengths.add((len(client.received), len(server.received)))
        assert connection.is_over
    assert len(lengths) > 5


@virtually
async def test_who_vanishes_hears_nothing_and_its_peer_is_reset() -> None:
    _, client, server = connected()
    client.transport.write(b"x")

    server.transport.vanish()
    client.transport.write(b"y")
    await later()

    assert (server.calls, server.received) == (["made"], b"")
    assert client.calls == ["made", "lost"]
    assert isinstance(client.lost, ConnectionResetError)


@virtually
async def test_held_lanes_deliver_when_they_are_released() -> None:
    connection, client, server = connected()
    connection.there.hold()

    client.transport.write(b"held")
    server.transport.write(b"passes")
    await later()
    held = server.received
    connection.there.release()
    await later()

    assert held == b""
    assert (client.received, server.received) == (b"passes", b"held")


def test_a_bug_of_a_protocol_ends_its_connection_and_is_reported() -> None:
    seen: list[Peer] = []

    class Buggy(Peer):
        def data_received(self, data: bytes) -> None:
            raise KeyError("bug")

    async def main() -> None:
        connection, client, _ = connected()
        buggy = Buggy()
        connection.server.set_protocol(buggy)
        assert connection.server.get_protocol() is buggy
        seen.extend([client, buggy])
        client.transport.write(b"x")
        await later()

    with pytest.raises(ExceptionGroup, match="data_received failed"):
        run_virtual(main())
    client, buggy = seen
    assert isinstance(buggy.lost, KeyError)
    assert isinstance(client.lost, ConnectionResetError)


@given(
    seed=st.integers(0, 10_000),
    chunks=st.lists(st.binary(max_size=50), max_size=10),
    pauses=st.lists(st.floats(0, 0.001), max_size=10),
    piece=st.integers(1, 30),
    window=st.integers(1, 100),
)
def test_whatever_chance_does_nothing_is_lost_or_turned_around(
    seed: int, chunks: list[bytes], pauses: list[float], piece: int, window: int
) -> None:
    async def main() -> tuple[bytes, list[str]]:
        _, client, server = connected(Conditions(piece_bytes_max=piece, window_bytes=window), seed)
        client.transport.set_write_buffer_limits(high=40)
        for chunk, pause in zip(chunks, [*pauses, *([0.0] * len(chunks))], strict=False):
            client.transport.write(chunk)
            server.transport.pause_reading()
            await asyncio.sleep(pause)
            server.transport.resume_reading()
        client.transport.close()
        await later()
        return server.received, client.calls

    received, calls = run_virtual(main())

    assert received == b"".join(chunks)
    assert calls.count("pause") - calls.count("resume") in (0, 1)
