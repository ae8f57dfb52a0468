"""What a worker says of itself survives the wire, also from one that says less."""

import msgspec

from tq.core.worker import WorkerInfo


def test_a_worker_that_does_not_tell_its_version_is_understood() -> None:
    older = msgspec.msgpack.encode(["w", "host", 7, "async", 10, ["mail.send"]])

    info = msgspec.msgpack.decode(older, type=WorkerInfo)

    assert info == WorkerInfo("w", "host", 7, "async", 10, ["mail.send"], version="")
