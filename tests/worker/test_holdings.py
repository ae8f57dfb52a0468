"""Holdings: nothing that a worker holds is lost, whatever becomes of its connection."""

import msgspec
import pytest

from tests.worker.scripted import LIMITS, record, registry
from tq.core.lease import DeliveryRef
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.protocol.messages import Held, Limits, Settle
from tq.worker.assignment import Assignment, Failed, Stage
from tq.worker.executor import Executor
from tq.worker.holdings import Holdings

EXECUTOR = Executor(registry(work=lambda: None), "w")


def holding(token: int, count: int, *, running: int = 0, now: float = 0.0) -> tuple[Holdings, list[Assignment]]:
    """Holdings with one delivery of *count* tasks, the first of them running."""
    holdings = Holdings()
    works = deliver(holdings, token, count, now)
    for _ in range(running):
        holdings.start(now)
    return holdings, works


def deliver(holdings: Holdings, token: int, count: int, now: float = 0.0) -> list[Assignment]:
    return holdings.accept(token, [EXECUTOR.read(record("work")) for _ in range(count)], now)


def send(holdings: Holdings, correlation: int, limits: Limits = LIMITS) -> Settle:
    batch = holdings.take_batch(limits)
    holdings.sent(correlation, batch)
    return batch.settle


def failure(text: str) -> Failed:
    return Failed(TaskFailure("E", "m", text))


def test_tasks_start_in_the_order_of_their_delivery() -> None:
    holdings, first = holding(1, 2)
    second = deliver(holdings, 2, 1)

    started = [holdings.start(5.0) for _ in range(4)]

    assert started == [*first, *second, None]
    assert [work.started_at for work in first] == [5.0, 5.0]
    assert holdings.running == {*first, *second}


def test_what_comes_next_is_what_is_started_next_whatever_was_given_up_before_it() -> None:
    holdings, (lost, refused, *waiting) = holding(1, 5)
    holdings.lose([DeliveryRef(1, 0)])
    holdings.refuse(refused)

    upcoming = holdings.next(2)

    assert upcoming == waiting[:2] == [holdings.start(5.0), holdings.start(5.0)]
    assert holdings.next(2) == waiting[2:]
    assert lost.stage is Stage.GONE


def test_outcomes_go_out_together_and_are_forgotten_when_they_are_settled() -> None:
    holdings, (one, two) = holding(7, 2, running=2)
    failed = failure("t")
    holdings.finish(one, b"r")
    holdings.finish(two, failed)

    settle = send(holdings, 11)

    assert settle == Settle([Done(7, 0, b"r")], [FailedAttempt(7, 1, failed.failure)])
    assert (holdings.has_unsent, holdings.batches_sent, holdings.unsettled) == (False, 1, 2)
    assert not holdings.is_empty
    holdings.settled(11)
    assert holdings.is_empty
    assert holdings.unsettled_bytes == 0


def test_a_connection_that_ends_before_the_answer_costs_no_outcome_and_keeps_their_order() -> None:
    holdings, (one, two, three) = holding(7, 3, running=3)
    holdings.finish(one, b"1")
    send(holdings, 11)
    holdings.finish(two, b"2")
    send(holdings, 12)
    holdings.finish(three, b"3")

    holdings.unsettle_all()

    assert sorted(send(holdings, 1).done, key=lambda done: done.index) == [
        Done(7, 0, b"1"),
        Done(7, 1, b"2"),
        Done(7, 2, b"3"),
    ]
    holdings.settled(1)
    assert holdings.is_empty


def test_what_is_held_says_what_has_started() -> None:
    holdings, (one, two, _) = holding(7, 3, running=2)
    deliver(holdings, 8, 1)
    holdings.finish(one, b"r")

    assert holdings.held() == [Held(7, [0, 1, 2], [0, 1]), Held(8, [0], [])]
    assert two.stage is Stage.RUNNING


def test_a_frame_holds_no_more_tasks_than_the_broker_takes() -> None:
    holdings, works = holding(7, 5, running=5)
    for work in works[:4]:
        holdings.finish(work, None)
    holdings.finish(works[4], failure("t"))
    limits = msgspec.structs.replace(LIMITS, tasks_per_frame_max=3)

    frames = [send(holdings, number, limits) for number in (1, 2)]

    assert [(len(frame.done), len(frame.failed)) for frame in frames] == [(3, 0), (1, 1)]
    assert not holdings.has_unsent


def test_a_frame_holds_no_more_bytes_than_the_broker_reads_but_always_one_outcome() -> None:
    holdings, works = holding(7, 3, running=3)
    for work, size in zip(works, (700, 200, 5_000), strict=True):
        holdings.finish(work, b"x" * size)
    limits = msgspec.structs.replace(LIMITS, frame_bytes_max=1_000)

    frames = [send(holdings, number, limits) for number in (1, 2)]

    assert [[done.index for done in frame.done] for frame in frames] == [[0, 1], [2]]


@pytest.mark.parametrize("text", ["x" * 10_000, "\N{PILE OF POO}" * 10_000])
def test_failures_are_counted_by_what_they_take_on_the_wire(text: str) -> None:
    holdings, works = holding(7, 20, running=20)
    for work in works:
        holdings.finish(work, failure(text))
    limits = msgspec.structs.replace(LIMITS, frame_bytes_max=100_000)
    frames: list[Settle] = []

    while holdings.has_unsent:
        frames.append(send(holdings, len(frames), limits))

    assert all(len(msgspec.msgpack.encode(frame)) <= 100_000 for frame in frames)
    assert [f.index for frame in frames for f in frame.failed] == list(range(20))


def test_only_what_has_waited_long_enough_is_handed_back() -> None:
    holdings, (running, old) = holding(7, 2, running=1, now=1.0)
    (new,) = deliver(holdings, 8, 1, now=2.0)

    names = holdings.hand_back(1.5)

    assert names == [DeliveryRef(7, 1)]
    assert (running.stage, old.stage, new.stage) == (Stage.RUNNING, Stage.GONE, Stage.WAITING)
    assert holdings.held() == [Held(7, [0], [0]), Held(8, [0], [])]


def test_a_lost_lease_takes_its_task_out_wherever_it_is() -> None:
    holdings, (finished, running, waiting, other) = holding(7, 4, running=2)
    holdings.finish(finished, b"r")

    to_stop, dropped = holdings.lose([DeliveryRef(7, 0), DeliveryRef(7, 1), DeliveryRef(7, 2), DeliveryRef(99, 0)])

    assert (to_stop, dropped) == ([running], 1)
    assert not holdings.has_unsent
    assert holdings.unsettled_bytes == 0
    assert holdings.start(0.0) is other
    assert waiting.stage is Stage.GONE
    assert holdings.held() == [Held(7, [3], [3])]


def test_the_outcome_of_a_lost_lease_is_dropped_and_its_slot_is_free() -> None:
    holdings, (work,) = holding(7, 1, running=1)
    holdings.lose([DeliveryRef(7, 0)])

    counts = holdings.finish(work, b"r")

    assert not counts
    assert not holdings.has_unsent
    assert holdings.is_empty


def test_the_second_end_of_an_abandoned_task_changes_nothing() -> None:
    holdings, (work,) = holding(7, 1, running=1)
    holdings.finish(work, failure("given up"))

    counts = holdings.finish(work, b"late")

    assert not counts
    assert send(holdings, 1).done == []


def test_a_lost_session_leaves_only_outcomes() -> None:
    holdings, (finished, running, waiting) = holding(7, 3, running=2)
    holdings.finish(finished, b"r")

    to_stop = holdings.lose_session()

    assert to_stop == [running]
    assert waiting.stage is Stage.GONE
    assert holdings.held() == []
    assert not holdings.has_waiting
    holdings.finish(running, b"too late")
    assert send(holdings, 1).done == [Done(7, 0, b"r")]
    holdings.settled(1)
    assert holdings.is_empty


def test_a_finished_task_leads_back_to_nothing_that_would_keep_it_alive() -> None:
    holdings, (work,) = holding(7, 1, running=1)
    work.run_by = [work]

    holdings.finish(work, None)

    assert work.run_by is None
