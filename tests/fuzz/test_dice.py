"""The dice of the guided fuzzer: bytes decide, and equal bytes decide equally."""

import random

from tests.fuzz.dice import BytesDice
from tests.fuzz.mutate import Mutator
from tests.fuzz.sides import attack_broker_end
from tq.protocol.messages import Type


def frames(data: bytes) -> list[bytes]:
    mutator = Mutator(BytesDice(data))
    return [mutator.frame(Type.ENQUEUE, 2) for _ in range(50)]


def test_equal_bytes_make_equal_frames_and_others_make_others() -> None:
    data = random.Random(1).randbytes(2_000)

    assert frames(data) == frames(data)
    assert frames(data) != frames(data[:-1_990] + bytes(1_990))


def test_a_byte_that_changes_leaves_what_was_drawn_before_it() -> None:
    data = random.Random(2).randbytes(2_000)

    one, other = frames(data), frames(data[:1_000] + bytes(1_000))

    assert one[:3] == other[:3]


def test_numbers_are_in_their_range_and_of_the_bytes() -> None:
    dice = BytesDice(b"\xff\xff" + b"\x00\x00" + b"\xff" + b"\x80\x00")

    assert dice.random() == 65_535 / 65_536
    assert dice.random() == 0.0
    assert dice.getrandbits(3) == 7
    assert dice.random() == 0.5
    assert 0 <= dice.random() < 1


def test_dice_without_bytes_go_on_as_a_seed_does() -> None:
    assert attack_broker_end(BytesDice(b""), 200) > 0
