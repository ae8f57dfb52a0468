"""The thread that gives room back: in order, on demand, harmless."""

from threading import Event

from tq.store import reclaimer
from tq.store.reclaimer import Reclaimer


class Compactions:
    """What is asked of a store; the first waits until it is let go on."""

    def __init__(self) -> None:
        self.begun = Event()
        self.let_on = Event()
        self.done: list[tuple[bytes, bytes]] = []

    def __call__(self, start: bytes, end: bytes) -> None:
        self.begun.set()
        self.let_on.wait()
        if start == b"bad":
            raise OSError("no")
        self.done.append((start, end))


def test_ranges_are_compacted_in_order_and_a_failure_harms_none_of_the_others() -> None:
    compactions = Compactions()
    compactions.let_on.set()
    last = Event()

    def compact(start: bytes, end: bytes) -> None:
        try:
            compactions(start, end)
        finally:
            if start == b"c":
                last.set()

    reclaiming = Reclaimer(compact)
    for start in (b"a", b"bad", b"c"):
        reclaiming.request(start, b"z")
    last.wait()
    reclaiming.close()

    assert compactions.done == [(b"a", b"z"), (b"c", b"z")]


def test_closing_waits_for_the_range_under_way_and_drops_the_others() -> None:
    compactions = Compactions()
    reclaiming = Reclaimer(compactions)
    reclaiming.request(b"a", b"b")
    compactions.begun.wait()
    reclaiming.request(b"c", b"d")
    reclaiming._is_closing = True

    compactions.let_on.set()
    reclaiming.close()
    reclaiming.request(b"e", b"f")

    assert compactions.done == [(b"a", b"b")]


def test_no_more_than_so_many_ranges_wait() -> None:
    compactions = Compactions()
    reclaiming = Reclaimer(compactions)
    reclaiming.request(b"a", b"b")
    compactions.begun.wait()

    for _ in range(reclaimer.WAITING_MAX + 5):
        reclaiming.request(b"c", b"d")

    assert reclaiming._ranges.qsize() == reclaimer.WAITING_MAX
    compactions.let_on.set()
    reclaiming.close()


def test_one_that_was_never_asked_has_no_thread_to_end() -> None:
    Reclaimer(Compactions()).close()
