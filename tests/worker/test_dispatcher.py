"""The dispatcher: from delivery to settlement, on a scripted broker and a clock that the test turns."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

import pytest

from tests.worker.rig import Gate, running
from tests.worker.scripted import LIMITS, record, soft
from tq.app.context import SoftTimeout
from tq.core.errors import InvalidArgument, Overloaded
from tq.core.lease import DeliveryRef
from tq.core.outcome import Retry, TaskFailure
from tq.protocol.messages import Deliver, Hello, Release, Revoke, Settle, Settled, Started, Window
from tq.worker.assignment import Failed, Outcome
from tq.worker.prefetch import PREFETCH_BYTES

T = TypeVar("T")


async def quick(x: int = 0) -> int:
    return x


def in_a_thread(function: Callable[[], T]) -> T:
    """Call *function* in another thread, and wait for it without letting the loop turn."""
    with ThreadPoolExecutor() as pool:
        return pool.submit(function).result()


async def test_what_is_delivered_is_run_and_settled() -> None:
    async with running(quick=quick) as rig:
        rig.broker.deliver(5, record("quick", 1), record("quick", 2), record("quick", 3))
        await rig.broker.until(lambda: len(rig.broker.done) == 3)
        await rig.turns()

        assert rig.broker.done == {(5, 0): 1, (5, 1): 2, (5, 2): 3}
        assert rig.dispatcher.holdings.is_empty


async def test_outcomes_of_one_turn_go_in_one_message() -> None:
    async with running(quick=quick, concurrency=10) as rig:
        rig.broker.deliver(5, *(record("quick") for _ in range(10)))
        await rig.broker.until(lambda: len(rig.broker.done) == 10)

        assert len(rig.broker.of(Settle)) == 1


async def test_no_more_run_at_a_time_than_the_concurrency() -> None:
    gate = Gate()
    async with running(gate=gate.__call__, concurrency=2) as rig:
        rig.broker.deliver(5, *(record("gate") for _ in range(5)))
        await rig.turns()
        at_once = gate.entered

        gate.open()
        await rig.broker.until(lambda: len(rig.broker.done) == 5)

        assert at_once == 2
        assert gate.entered == 5


async def test_a_task_that_is_over_within_the_turn_gets_no_started_mark_and_one_that_lasts_gets_one() -> None:
    async def sometimes(lasts: bool) -> None:
        if lasts:
            await asyncio.Event().wait()

    async with running(sometimes=sometimes) as rig:
        rig.broker.deliver(5, record("sometimes", False))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        rig.broker.said.clear()

        rig.broker.deliver(6, *(record("sometimes", lasts) for lasts in (False, True, False)))
        await rig.turns(50)

        assert rig.broker.of(Started) == [Started([DeliveryRef(6, 1)])]


async def test_a_kind_that_has_not_ended_here_yet_is_marked_before_it_runs() -> None:
    marked_when_it_ran: list[int] = []

    async def work() -> None:
        marked_when_it_ran.append(len(rig.broker.of(Started)))

    async with running(work=work, concurrency=2) as rig:
        rig.broker.deliver(5, *(record("work") for _ in range(4)))
        await rig.broker.until(lambda: len(rig.broker.done) == 4)

        assert rig.broker.of(Started) == [Started([DeliveryRef(5, 0), DeliveryRef(5, 1)])]
        assert marked_when_it_ran[0] == 1


async def test_an_end_without_the_handlers_proves_nothing_of_a_kind() -> None:
    marked_when_it_ran: list[list[Started]] = []

    async def work() -> None:
        marked_when_it_ran.append(rig.broker.of(Started))

    async with running(work=work, concurrency=1) as rig:
        rig.broker.deliver(5, record("work", "which takes none"), record("work"), record("work"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed and (5, 2) in rig.broker.done)

    marks = [Started([DeliveryRef(5, 0)]), Started([DeliveryRef(5, 1)])]
    assert marked_when_it_ran == [marks, marks]


async def test_a_coroutine_cancelled_before_its_first_step_proves_nothing_of_its_kind() -> None:
    async with running(quick=quick, concurrency=1) as rig:
        (work,) = rig.dispatcher.holdings.accept(5, [rig.executor.read(record("quick"))], rig.clock())
        rig.dispatcher.holdings.start(rig.clock())
        rig.pool.run(work)
        rig.dispatcher.stop_running()
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)

        assert not work.plan.is_proven


async def test_a_kind_is_marked_before_it_first_runs_though_others_before_it_were_lost_or_unknown() -> None:
    gate = Gate()
    marked_when_it_ran: list[list[Started]] = []

    async def work() -> None:
        marked_when_it_ran.append(rig.broker.of(Started))

    async with running(gate=gate.__call__, work=work, concurrency=1) as rig:
        rig.broker.deliver(5, record("gate"), record("work"), record("nowhere"), record("work"))
        await gate.until(lambda gate: gate.entered == 1)
        rig.broker.push(Revoke([DeliveryRef(5, 1)]))
        await rig.turns()
        gate.open()
        await rig.broker.until(lambda: (5, 3) in rig.broker.done)

    assert marked_when_it_ran == [[Started([DeliveryRef(5, 0)]), Started([DeliveryRef(5, 3)])]]


async def test_what_blocks_the_loop_in_its_first_step_is_known_as_begun_to_who_asks_from_outside() -> None:
    begun: list[list[DeliveryRef]] = []

    async def work(blocks: bool) -> None:
        if blocks:
            begun.append(in_a_thread(rig.dispatcher.unmarked))

    async with running(work=work, concurrency=1) as rig:
        rig.broker.deliver(5, record("work", False))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        rig.broker.deliver(6, record("work", True), record("work", False))
        await rig.broker.until(lambda: (6, 1) in rig.broker.done)

        assert begun == [[DeliveryRef(6, 0)]]
        assert rig.dispatcher.unmarked() == []


async def test_what_waited_while_the_loop_stood_still_is_handed_back_and_not_run() -> None:
    ran: list[str] = []

    async def work(key: str, seconds: float) -> None:
        ran.append(key)
        rig.clock.advance(seconds)

    async with running(work=work, concurrency=1, prefetch=5) as rig:
        rig.broker.deliver(5, *(record("work", key, seconds) for key, seconds in (("a", 4.9), ("b", 5.1), ("c", 0.0))))
        await rig.turns()
        rig.tick()
        rig.broker.deliver(6, record("work", "d", 0.0))
        await rig.broker.until(lambda: (6, 0) in rig.broker.done)

    assert ran == ["a", "b", "d"]
    assert rig.broker.of(Release) == [Release([DeliveryRef(5, 2)])]


async def test_a_plain_function_runs_in_a_thread_beside_the_loop() -> None:
    threads: list[str] = []

    def plain() -> None:
        threads.append(threading.current_thread().name)

    async with running(plain=plain) as rig:
        rig.broker.deliver(5, record("plain"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

    assert threads == ["tq-handler"]


async def test_what_a_handler_leaves_in_its_context_does_not_reach_the_next_task() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="clean")

    async def leave() -> str:
        before = mark.get()
        mark.set("dirty")
        for _ in range(5):  # so that it is this task that causes the turn in which the next one starts
            await asyncio.sleep(0)
        return before

    def leave_in_thread() -> str:
        before = mark.get()
        mark.set("dirty")
        return before

    async with running(leave=leave, leave_in_thread=leave_in_thread, concurrency=1) as rig:
        rig.broker.deliver(5, *(record(name) for name in ["leave"] * 2 + ["leave_in_thread"] * 2))
        await rig.broker.until(lambda: len(rig.broker.done) == 4)

        assert set(rig.broker.done.values()) == {"clean"}


async def test_a_task_of_an_unknown_name_is_handed_back_without_an_attempt(caplog: pytest.LogCaptureFixture) -> None:
    async with running(quick=quick) as rig:
        rig.broker.deliver(5, record("quick", 1), record("elsewhere.work"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        await rig.turns()

        assert rig.broker.of(Release) == [Release([DeliveryRef(5, 1)])]
        assert not rig.broker.failed
        assert "elsewhere.work" in caplog.text


async def test_a_suspect_is_marked_before_it_runs() -> None:
    async with running(quick=quick) as rig:
        rig.broker.deliver(5, record("quick"), alone=True)
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        kinds = [type(message) for message in rig.broker.said if isinstance(message, Started | Settle)]
        assert kinds == [Started, Settle]


async def test_a_failed_attempt_is_logged_with_its_task_and_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def wrong() -> None:
        raise ValueError("no good")

    with caplog.at_level(logging.WARNING):
        async with running(wrong=wrong) as rig:
            rig.broker.deliver(5, record("wrong", attempts=1))
            await rig.broker.until(lambda: (5, 0) in rig.broker.failed)

    (entry,) = caplog.records
    assert "task wrong 00000000" in entry.getMessage()
    assert "attempt 2 of 5" in entry.getMessage()
    assert "in wrong" in entry.getMessage()
    assert entry.__dict__["task_name"] == "wrong"


async def test_a_retry_that_the_handler_asked_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> Retry:
        return Retry(after=5)

    with caplog.at_level(logging.INFO, "tq.worker.dispatcher"):
        async with running(later=later) as rig:
            rig.broker.deliver(5, record("later"))
            await rig.broker.until(lambda: (5, 0) in rig.broker.failed)

    assert [entry.levelname for entry in caplog.records] == ["INFO"]


# ---------------------------------------------------------------------------------------------- windows


async def test_the_window_is_told_at_once_in_tasks_and_bytes() -> None:
    async with running(quick=quick, concurrency=3, prefetch=4) as rig:
        await rig.turns()

    assert rig.broker.of(Window) == [Window(7, PREFETCH_BYTES + 3 * LIMITS.payload_bytes_max)]


async def test_quick_tasks_open_the_window() -> None:
    async with running(quick=quick, concurrency=10) as rig:
        rig.broker.deliver(5, *(record("quick") for _ in range(10)))
        await rig.broker.until(lambda: len(rig.broker.of(Window)) == 2)

    assert [window.tasks for window in rig.broker.of(Window)] == [20, 4_010]


async def test_what_is_stuck_behind_long_tasks_is_handed_back_and_not_asked_for_again() -> None:
    gate = Gate()
    async with running(quick=quick, gate=gate.__call__, concurrency=2) as rig:
        rig.broker.deliver(5, record("gate"), record("gate"), record("quick"), record("quick"))
        await rig.turns()

        rig.tick(0.09)
        await rig.turns()
        early = rig.broker.of(Release)
        rig.tick(0.02)
        await rig.broker.next(Release)

        assert early == []
        assert rig.broker.of(Release) == [Release([DeliveryRef(5, 2), DeliveryRef(5, 3)])]
        last_window = rig.broker.of(Window)[-1]
        assert last_window.tasks == 2
        assert rig.broker.said.index(last_window) < rig.broker.said.index(rig.broker.of(Release)[0])


async def test_a_hand_back_closes_the_window_also_by_less_than_is_usually_news() -> None:
    first, gate = Gate(), Gate()
    async with running(first=first.__call__, gate=gate.__call__, concurrency=8) as rig:
        rig.broker.deliver(5, record("first"))
        await rig.turns()
        rig.clock.advance(0.15)
        first.open()
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        await rig.turns()
        before = rig.broker.of(Window)[-1]

        rig.broker.deliver(6, *(record("gate") for _ in range(10)))
        await rig.turns()
        rig.tick(0.11)
        await rig.broker.until(lambda: rig.broker.of(Release) == [Release([DeliveryRef(6, 8), DeliveryRef(6, 9)])])

        assert before.tasks == 10
        assert rig.broker.of(Window)[-1].tasks == 8


async def test_nothing_is_handed_back_while_a_slot_turns_over() -> None:
    gate, other = Gate(), Gate()
    async with running(gate=gate.__call__, other=other.__call__, concurrency=2) as rig:
        rig.broker.deliver(5, record("gate"), record("other"), record("gate"), record("gate"))
        await rig.turns()
        rig.clock.advance(0.08)
        other.open()
        await rig.broker.until(lambda: (5, 1) in rig.broker.done)

        rig.tick(0.05)  # the first has run for 0.13 s, the one in the other slot for 0.05 s
        await rig.turns()

        assert rig.broker.of(Release) == []


async def test_a_prefetch_that_the_user_set_is_kept_whatever_happens() -> None:
    gate = Gate()
    async with running(gate=gate.__call__, concurrency=1, prefetch=1) as rig:
        rig.broker.deliver(5, record("gate"), record("gate"))
        await rig.turns()

        rig.tick(5.0)
        await rig.turns()

        assert rig.broker.of(Release) == []


@pytest.mark.parametrize(
    "spoils", [b"x" * 1_048_576, Failed(TaskFailure("E", "m"), 2**70), Failed(TaskFailure("E", "\ud800"))]
)
async def test_an_outcome_that_cannot_be_sent_becomes_a_failure_and_spoils_no_other(spoils: Outcome) -> None:
    gate = Gate()
    async with running(gate=gate.__call__, quick=quick, concurrency=3) as rig:
        rig.broker.deliver(5, *(record("gate") for _ in range(3)))
        rig.broker.deliver(6, record("quick", 1))
        await gate.until(lambda gate: gate.entered == 3)
        fine = Failed(TaskFailure("E", "fine"))

        for work in list(rig.dispatcher.holdings.running):
            rig.dispatcher.finished(work, {0: b"\x07", 1: spoils, 2: fine}[work.index])
        await rig.broker.until(lambda: (6, 0) in rig.broker.done)
        await rig.turns()

        assert rig.broker.done == {(5, 0): 7, (6, 0): 1}
        assert set(rig.broker.failed) == {(5, 1), (5, 2)}
        assert rig.broker.failed[5, 2].failure == fine.failure
        assert "cannot be sent" in rig.broker.failed[5, 1].failure.message
        assert rig.broker.failed[5, 1].reject is isinstance(spoils, bytes)
        assert rig.dispatcher.holdings.unsettled == 0
        assert rig.dispatcher.holdings.unsettled_bytes == 0


async def test_no_task_is_started_while_too_much_waits_to_be_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.worker.dispatcher.UNSETTLED_BYTES_MAX", 1_000)

    async def large() -> bytes:
        return b"x" * 600

    async with running(large=large, concurrency=1) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, *(record("large") for _ in range(4)))
        await rig.turns(50)
        before = set(rig.broker.done)

        rig.broker.holds.clear()
        assert rig.broker.worker is not None
        rig.broker.worker.answer_kept()
        await rig.broker.until(lambda: len(rig.broker.done) == 4)

        assert before == {(5, 0), (5, 1)}


async def test_behind_unanswered_settles_outcomes_wait_for_each_other() -> None:
    async with running(quick=quick, concurrency=1) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, *(record("quick") for _ in range(20)))
        await rig.turns(100)
        unanswered = len(rig.broker.of(Settle))

        rig.broker.holds.clear()
        assert rig.broker.worker is not None
        rig.broker.worker.answer_kept()
        await rig.broker.until(lambda: len(rig.broker.done) == 20)

        assert unanswered == 4
        assert len(rig.broker.of(Settle)) == 5


# ---------------------------------------------------------------------------------------------- time limits


async def test_a_task_that_runs_longer_than_its_timeout_is_cancelled_and_fails() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate", timeout_ms=2_000))
        await rig.turns()

        rig.tick(1.9)
        await rig.turns()
        early = gate.cancelled
        rig.tick(0.2)
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)

        assert early == 0
        assert gate.cancelled == 1
        assert rig.broker.failed[5, 0].failure.type == "TaskTimeout"


async def test_one_that_has_run_for_its_soft_timeout_is_reminded_once_and_stopped_at_its_timeout() -> None:
    reminders: list[str] = []

    @soft(2)
    async def work() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except SoftTimeout:
                reminders.append("soft")

    async with running(work=work) as rig:
        rig.broker.deliver(5, record("work", timeout_ms=5_000))
        await rig.turns()
        for seconds in (1.9, 0.2, 2.8):
            rig.tick(seconds)
            await rig.turns()
            if seconds == 1.9:
                assert reminders == []

        assert reminders == ["soft"]
        rig.tick(0.2)
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)
        assert rig.broker.failed[5, 0].failure.type == "TaskTimeout"


async def test_one_that_does_not_heed_its_cancellation_is_abandoned_and_keeps_its_seat(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    gate.heeds_cancellation = False
    async with running(gate=gate.__call__, quick=quick, concurrency=2, prefetch=1) as rig:
        rig.broker.deliver(5, record("gate", timeout_ms=1_000), record("gate"), record("quick", 7))
        await rig.turns()

        rig.tick(1.0)
        await gate.until(lambda gate: gate.cancelled == 1)
        rig.tick(5.0)
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)
        await rig.turns()
        stuck, done = rig.pool.stuck, dict(rig.broker.done)
        gate.open()
        await rig.broker.until(lambda: (5, 2) in rig.broker.done)
        await rig.turns()

        assert (stuck, rig.pool.stuck) == (["gate"], [])
        assert rig.broker.failed[5, 0].failure.type == "TaskTimeout"
        assert done == {}
        assert rig.broker.done == {(5, 1): "through", (5, 2): 7}
        assert "cannot be stopped" in caplog.text
        assert rig.dispatcher.holdings.is_empty


async def test_however_many_do_not_heed_their_cancellation_no_more_run_than_there_are_seats() -> None:
    gate = Gate()
    gate.heeds_cancellation = False
    async with running(gate=gate.__call__, concurrency=2, prefetch=4) as rig:
        rig.broker.deliver(5, *(record("gate", timeout_ms=1_000) for _ in range(6)))
        for _ in range(3):
            await rig.turns()
            rig.tick(1.0)
            await rig.turns()
            rig.tick(5.0)
        await rig.broker.until(lambda: len(rig.broker.failed) == 2)
        await rig.turns()
        entered, closed = gate.entered, rig.broker.of(Window)[-1].tasks
        gate.open()
        await rig.broker.until(lambda: rig.broker.of(Window)[-1].tasks > 0)

        assert (entered, closed) == (2, 0)


@pytest.mark.parametrize("prefetch", [None, 1])
async def test_a_thread_that_runs_for_too_long_keeps_its_seat_and_what_waits_for_it_goes_back(
    prefetch: int | None,
) -> None:
    door = threading.Event()

    def hang() -> str:
        door.wait(10)
        return "late"

    def plain() -> int:
        return 1

    async with running(hang=hang, plain=plain, concurrency=1, prefetch=prefetch) as rig:
        rig.broker.deliver(5, record("hang", timeout_ms=50), record("plain"))
        await rig.turns()

        rig.tick(0.05)
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)
        rig.tick(0.1)
        await rig.broker.until(lambda: Release([DeliveryRef(5, 1)]) in rig.broker.said)
        closed = rig.broker.of(Window)[-1].tasks
        door.set()
        await rig.broker.until(lambda: rig.broker.of(Window)[-1].tasks > 0)

        assert rig.broker.failed[5, 0].failure.type == "TaskTimeout"
        assert closed == 0
        assert rig.broker.done == {}


# ---------------------------------------------------------------------------------------------- lost leases


async def test_a_revoked_task_is_stopped_and_its_outcome_is_nobodys_business() -> None:
    gate = Gate()
    async with running(gate=gate.__call__, quick=quick, concurrency=1, prefetch=2) as rig:
        rig.broker.deliver(5, record("gate"), record("gate"), record("quick", 7))
        await rig.turns()

        rig.broker.push(Revoke([DeliveryRef(5, 0), DeliveryRef(5, 1)]))
        await rig.broker.until(lambda: (5, 2) in rig.broker.done)

        assert (gate.entered, gate.cancelled) == (1, 1)
        assert rig.broker.done == {(5, 2): 7}
        assert not rig.broker.failed


async def test_a_task_revoked_before_its_first_step_frees_its_slot_at_once() -> None:
    gate = Gate()
    async with running(gate=gate.__call__, concurrency=1) as rig:
        rig.dispatcher.delivered(Deliver(5, False, [record("gate")]))
        rig.dispatcher.revoked(Revoke([DeliveryRef(5, 0)]))
        await rig.turns()

        assert gate.entered == 0
        assert rig.dispatcher.holdings.is_empty


async def test_outcomes_that_came_too_late_are_told_to_the_log_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(quick=quick) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, record("quick"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        correlation = next(iter(rig.dispatcher.holdings._sent))

        rig.dispatcher.settled(correlation, Settled([DeliveryRef(5, 0)]))

        assert rig.dispatcher.holdings.is_empty
        assert "1 outcomes came too late" in caplog.text


# ---------------------------------------------------------------------------------------------- refusals


async def test_outcomes_that_the_broker_cannot_take_now_are_sent_again_later() -> None:
    async with running(quick=quick) as rig:
        overloaded = Overloaded("busy")
        overloaded.retry_after_ms = 3_000
        rig.broker.refuses[Settle] = overloaded
        rig.broker.deliver(5, record("quick", 7))
        await rig.broker.until(lambda: len(rig.broker.of(Settle)) == 1)

        rig.tick(2.9)
        await rig.turns()
        early = len(rig.broker.of(Settle))
        rig.tick(0.2)
        await rig.broker.next(Settle)
        await rig.turns()

        assert early == 1
        assert rig.broker.of(Settle)[1] == rig.broker.of(Settle)[0]
        assert rig.dispatcher.holdings.is_empty


async def test_outcomes_that_the_broker_will_never_take_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async with running(quick=quick) as rig:
        rig.broker.refuses[Settle] = InvalidArgument("what is this?")
        rig.broker.deliver(5, record("quick"))
        await rig.broker.until(lambda: len(rig.broker.of(Settle)) == 1)
        await rig.turns()

        assert rig.dispatcher.holdings.is_empty
        assert "what is this?" in caplog.text


# ---------------------------------------------------------------------------------------------- leaving


async def test_who_leaves_hands_back_what_has_not_started_and_takes_nothing_new() -> None:
    gate = Gate()
    async with running(gate=gate.__call__, concurrency=1) as rig:
        rig.broker.deliver(5, record("gate"), record("gate"))
        await rig.turns()

        rig.dispatcher.leave()
        rig.broker.deliver(6, record("gate"))
        await rig.broker.until(lambda: len(rig.broker.of(Release)) == 2)
        gate.open()
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        assert rig.broker.of(Window)[-1] == Window(0, 0)
        assert rig.broker.of(Release) == [Release([DeliveryRef(5, 1)]), Release([DeliveryRef(6, 0)])]


async def test_what_still_runs_when_its_worker_must_go_fails_and_is_tried_again_at_once() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate"))
        await rig.turns()

        rig.dispatcher.leave()
        rig.dispatcher.stop_running()
        await rig.broker.until(lambda: (5, 0) in rig.broker.failed)

        failed = rig.broker.failed[5, 0]
        assert (failed.failure.type, failed.retry_after_ms, failed.reject) == ("WorkerStopped", 0, False)


# ---------------------------------------------------------------------------------------------- reconnecting


async def test_an_outcome_survives_the_connection_it_was_sent_on() -> None:
    async with running(quick=quick) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, record("quick", 7))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        rig.broker.holds.clear()
        rig.broker.said.clear()
        rig.broker.cut()
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        await rig.turns()

        (hello,) = rig.broker.of(Hello)
        assert [(held.token, held.indexes, held.started) for held in hello.held] == [(5, [0], [0])]
        assert rig.dispatcher.holdings.is_empty


async def test_a_task_goes_on_through_a_lost_connection_and_is_settled_on_the_next() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate"))
        await rig.turns()

        rig.broker.is_absent = True
        rig.broker.cut()
        await rig.turns()
        gate.open()
        await rig.turns()
        rig.broker.is_absent = False
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        assert (gate.entered, gate.cancelled) == (1, 0)
        assert rig.broker.done == {(5, 0): "through"}


async def test_a_worker_without_a_broker_does_not_turn_in_circles() -> None:
    first, second = Gate(), Gate()
    async with running(first=first.__call__, second=second.__call__, concurrency=2) as rig:
        rig.broker.deliver(5, record("first"), record("first"), record("second"))
        await rig.turns()

        rig.broker.is_absent = True
        rig.broker.cut()
        await rig.turns()
        first.open()
        await second.until(lambda second: second.entered == 1)
        await rig.turns()

        assert not rig.dispatcher._turn_is_due


async def test_what_the_broker_says_is_lost_at_the_reconnection_is_stopped() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate"))
        await rig.turns()

        rig.broker.lost = [DeliveryRef(5, 0)]
        rig.broker.cut()
        await gate.until(lambda gate: gate.cancelled == 1)
        await rig.turns()

        assert rig.dispatcher.holdings.is_empty
        assert not rig.broker.failed


async def test_an_outcome_that_is_lost_at_the_reconnection_is_told_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running(quick=quick) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, record("quick"), record("quick"))
        await rig.broker.until(lambda: (5, 1) in rig.broker.done)
        rig.broker.holds.clear()
        rig.broker.said.clear()

        rig.broker.lost = [DeliveryRef(5, 0)]
        rig.broker.cut()
        await rig.broker.until(lambda: (5, 1) in rig.broker.done)

        assert (5, 0) not in rig.broker.done
        assert "1 outcomes came too late" in caplog.text


async def test_waiting_for_a_condition_ends_when_a_turn_makes_it_true() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate"))
        await rig.turns()
        waiting = asyncio.create_task(rig.dispatcher.until(lambda: rig.dispatcher.holdings.is_empty))
        await rig.turns()
        before = waiting.done()

        gate.open()
        await asyncio.wait_for(waiting, 10)

        assert not before
