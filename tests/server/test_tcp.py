"""The listening socket, with real bytes over loopback: also such as no client of ours would send."""

import asyncio

from hypothesis import given, settings, strategies as st

from tests.broker.peers import Bench
from tq.broker.config import Address
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import Frame, FrameReader
from tq.protocol.messages import MAGIC, VERSIONS, Enqueued, Error, Hello, Role, Welcome
from tq.server.tcp import bound, listen
from tq.store.memory import MemoryStore


async def read_until_end(reader: asyncio.StreamReader) -> list[object]:
    data = await asyncio.wait_for(reader.read(), 10)
    return [decode_message(frame.kind, frame.body) for frame in FrameReader().feed(data)]


async def test_port_zero_takes_a_free_port_that_bound_tells() -> None:
    bench = await Bench(MemoryStore()).start()
    server = await listen(bench.service, Address("127.0.0.1", 0))
    async with server:
        address = bound(server)

        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(encode_message(Hello(MAGIC, VERSIONS.first, Role.CLIENT), 1))
        writer.write(encode_message(bench.enqueue(), 2))
        frames: list[Frame] = []
        cut = FrameReader()
        while len(frames) < 2:
            frames += cut.feed(await asyncio.wait_for(reader.read(65_536), 10))
        writer.close()
        await bench.service.stop()

    assert [type(decode_message(frame.kind, frame.body)) for frame in frames] == [Welcome, Enqueued]


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=2_000))
def test_bytes_that_are_no_protocol_get_an_error_or_a_closed_connection_and_harm_nobody(junk: bytes) -> None:
    async def run() -> None:
        bench = await Bench(MemoryStore()).start()
        server = await listen(bench.service, Address("127.0.0.1", 0))
        async with server:
            host, port = bound(server)
            bad, bad_writer = await asyncio.open_connection(host, port)
            good, good_writer = await asyncio.open_connection(host, port)

            bad_writer.write(junk)
            bad_writer.write_eof()
            good_writer.write(encode_message(Hello(MAGIC, VERSIONS.first, Role.CLIENT), 1))
            first = await asyncio.wait_for(good.read(65_536), 10)
            answers = await read_until_end(bad)
            bad_writer.close()
            good_writer.close()
            await bench.service.stop()

        assert all(isinstance(answer, Error) for answer in answers)
        (frame,) = FrameReader().feed(first)
        assert isinstance(decode_message(frame.kind, frame.body), Welcome)
        assert bench.service.failed is not None
        assert not bench.service.failed.done()

    asyncio.run(run())
