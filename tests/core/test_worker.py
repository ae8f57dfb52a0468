"""What a worker says of itself survives the wire, also from and to one of another version."""

import msgspec
import pytest

from tq.core.worker import WorkerInfo


@pytest.mark.parametrize("more", [[], [""]], ids=["no version", "no labels"])
def test_a_worker_that_says_less_is_understood(more: list[str]) -> None:
    older = msgspec.msgpack.encode(["w", "host", 7, "async", 10, ["mail.send"], *more])

    info = msgspec.msgpack.decode(older, type=WorkerInfo)

    assert info == WorkerInfo("w", "host", 7, "async", 10, ["mail.send"], version="", labels={})


def test_one_that_says_more_is_understood_as_far_as_it_goes() -> None:
    newer = msgspec.msgpack.encode(["w", "host", 7, "async", 10, ["mail.send"], "1", {"zone": "eu"}, "unheard of"])

    info = msgspec.msgpack.decode(newer, type=WorkerInfo)

    assert info == WorkerInfo("w", "host", 7, "async", 10, ["mail.send"], "1", {"zone": "eu"})
