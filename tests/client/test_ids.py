"""The ids of a client: increasing, by the broker's clock, in any thread and after a fork."""

import os
import threading

import pytest
from hypothesis import given, strategies as st

from tq.client.ids import ClientIds
from tq.core.ids import IdMaker, is_uuid7, made_at


@given(counts=st.lists(st.integers(0, 50)), clock=st.lists(st.integers(0, 2**48 - 1), min_size=1))
def test_ids_of_one_and_of_many_increase_whatever_the_clock_does(counts: list[int], clock: list[int]) -> None:
    times = iter(clock)
    last = [clock[0]]

    def now() -> int:
        last[0] = next(times, last[0])
        return last[0]

    maker = IdMaker(now, os.urandom)

    ids = [made for count in counts for made in [*maker.make_many(count), maker.make()]]

    assert all(map(is_uuid7, ids))
    assert ids == sorted(set(ids))
    assert len(ids) == sum(counts) + len(counts)


def test_many_ids_carry_over_into_the_next_millisecond_when_one_is_full() -> None:
    maker = IdMaker(lambda: 7, lambda count: b"\xff" * count)
    maker.make()
    maker._tail = (1 << 74) - 2

    first, second = maker.make_many(2)

    assert first < second
    assert (made_at(first), made_at(second)) == (8, 8)


def test_the_clock_is_that_of_the_broker() -> None:
    ids = ClientIds(lambda: 1_000, os.urandom)

    before = ids.make()
    ids.correct(900_000)

    assert made_at(before) == 1_000
    assert made_at(ids.make()) == 900_000


def test_threads_never_get_the_same_id() -> None:
    ids = ClientIds(lambda: 1_000, os.urandom)
    made: list[bytes] = []

    def make() -> None:
        for _ in range(50):
            made.extend(ids.make_many(10))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == len(made) == 4_000


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_does_not_repeat_the_ids_of_its_parent() -> None:
    ids = ClientIds(lambda: 1_000, os.urandom)
    ids.make()
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(ids.make_many(100)))
        os._exit(0)
    ours = ids.make_many(100)
    os.waitpid(child, 0)
    theirs = os.read(reading, 1_600)
    os.close(reading)
    os.close(writing)

    assert len({*ours, *(theirs[at : at + 16] for at in range(0, 1_600, 16))}) == 200
