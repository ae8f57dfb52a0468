"""A few seconds of `make fuzz`, and bugs that it must find."""

import random
from collections.abc import Callable

import pytest

from tests.fuzz.mutate import Mutator
from tests.fuzz.run import main
from tests.fuzz.service import attack_service
from tests.fuzz.sides import attack_broker_end, attack_client_end
from tq.broker.batch import Batch
from tq.broker.sessions import Session
from tq.broker.turns import Turns
from tq.core.errors import RemoteProtocolError
from tq.protocol import codec, connection, session
from tq.protocol.frames import FrameReader
from tq.protocol.messages import Type


@pytest.mark.parametrize("attack", [attack_broker_end, attack_client_end])
@pytest.mark.parametrize("seed", range(5))
def test_an_end_gives_whole_messages_or_breaks_off(attack: Callable[[random.Random, int], int], seed: int) -> None:
    messages = attack(random.Random(seed), 4_000)

    # Most is read, much is not.
    assert 1_600 < messages < 3_900


@pytest.mark.parametrize("seed", range(10))
async def test_a_service_goes_on_whatever_it_is_sent(seed: int) -> None:
    assert await attack_service(random.Random(seed), 1_500) > 300


def test_one_chunk_can_be_run_again_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", "broker", "--chunk", "7"]) == 0

    assert "chunk 7 passed" in capsys.readouterr().out


def test_frames_are_the_same_for_the_same_seed() -> None:
    one, other = Mutator(random.Random(3)), Mutator(random.Random(3))

    assert [one.frame(Type.ENQUEUE, 2) for _ in range(500)] == [other.frame(Type.ENQUEUE, 2) for _ in range(500)]


# ------------------------------------------------------------------------------------------- planted bugs


def test_an_error_of_the_decoder_that_is_not_translated_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def untranslated(kind: int, body: bytes) -> object:
        return codec._DECODERS[kind].decode(body)

    for side in (connection, session):
        monkeypatch.setattr(side, "decode_message", untranslated)

    for attack in (attack_broker_end, attack_client_end):
        with pytest.raises((ValueError, KeyError, RecursionError)):
            attack(random.Random(1), 10_000)


def test_a_reader_that_loses_a_byte_between_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FrameReader.feed

    def feed(self: FrameReader, data: bytes) -> object:
        frames = whole(self, data)
        if len(self._buffer) == 9:
            del self._buffer[-1:]
        return frames

    monkeypatch.setattr(FrameReader, "feed", feed)

    with pytest.raises((AssertionError, ValueError, RemoteProtocolError)):
        attack_broker_end(random.Random(1), 20_000)


async def test_a_request_that_stops_the_service_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Turns._answer

    def answer_but_one(self: Turns, session: Session, request: connection.Request, batch: Batch, now: int) -> bool:
        if request.kind is Type.GET and len(request.message.ids) == 0:  # type: ignore[attr-defined]
            raise ZeroDivisionError
        return answer(self, session, request, batch, now)

    monkeypatch.setattr(Turns, "_answer", answer_but_one)

    with pytest.raises(AssertionError, match="the service has stopped"):
        await attack_service(random.Random(1), 40_000)
