"""How long a process that died waits for its successor."""

from tq.worker.restarts import wait_after


def test_the_wait_doubles_up_to_its_bound() -> None:
    assert [wait_after(failures) for failures in (1, 2, 3, 5, 6, 7, 10_000)] == [1, 2, 4, 16, 30, 30, 30]
