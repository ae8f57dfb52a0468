"""Identity: session and secret belong together."""

from itertools import count

from tq.worker.identity import Identity


def test_a_renewed_worker_has_another_session_and_another_secret() -> None:
    numbers = count(1)
    identity = Identity(lambda size: bytes([next(numbers)]) * size)
    before = identity.credentials

    identity.renew()

    assert before == (bytes([1]) * 16, bytes([2]) * 16)
    assert identity.credentials == (bytes([3]) * 16, bytes([4]) * 16)
