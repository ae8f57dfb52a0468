"""The executor: how an attempt ends, one line of its table after the other."""

import asyncio
import contextvars
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from tests.worker.scripted import record, registry, soft
from tq.app.context import SoftTimeout, TaskContext, current_task
from tq.app.middleware import Middleware
from tq.app.registry import Handler, Registry
from tq.core.outcome import (
    MESSAGE_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    TYPE_CHARACTERS_MAX,
    Reject,
    Retry,
    TaskFailure,
)
from tq.core.retry import BACKOFF_MS_MAX
from tq.core.task import TaskSpec
from tq.worker.assignment import Assignment, Failed, Outcome, Stop
from tq.worker.executor import Executor

Way = Callable[[Executor, Assignment], Outcome]


def on_the_loop(executor: Executor, work: Assignment) -> Outcome:
    async def main() -> Outcome:
        outcomes: list[Outcome] = []
        await asyncio.create_task(executor.run(work, lambda _, outcome: outcomes.append(outcome)))
        (outcome,) = outcomes
        return outcome

    return asyncio.run(main())


def in_a_thread(executor: Executor, work: Assignment) -> Outcome:
    def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(coroutine)

    return contextvars.copy_context().run(executor.run_blocking, work, drive, lambda: None)


def assigned(executor: Executor, name: str, *args: object, **spec: object) -> Assignment:
    task, plan = executor.read(record(name, *args, **spec))
    return Assignment(1, 0, task, plan, 0.0)


def outcome_of(function: Callable[..., object], *args: object, way: Way | None = None, **spec: Any) -> Outcome:
    executor = Executor(registry(work=function), "w")
    work = assigned(executor, "work", *args, **spec)
    way = way or (on_the_loop if asyncio.iscoroutinefunction(function) else in_a_thread)
    return way(executor, work)


def failure_of(function: Callable[..., object], *args: object, **spec: Any) -> Failed:
    outcome = outcome_of(function, *args, **spec)
    assert isinstance(outcome, Failed)
    return outcome


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def plain_double(x: int) -> int:
    return 2 * x


def unencodable() -> object:
    return object()


@pytest.mark.parametrize(
    ("function", "way"), [(double, on_the_loop), (double, in_a_thread), (plain_double, in_a_thread)]
)
def test_a_value_is_encoded_as_the_task_asks(function: Callable[[int], object], way: Way) -> None:
    assert outcome_of(function, 21, way=way) == msgspec.msgpack.encode(42)


def test_a_result_that_nobody_keeps_is_not_even_encoded() -> None:
    assert outcome_of(unencodable, result_ttl_ms=0) is None


def test_an_exception_is_a_failed_attempt_with_its_traceback_from_the_handler_on() -> None:
    failed = failure_of(raising(ValueError("no good")))

    assert (failed.failure.type, failed.failure.message) == ("ValueError", "no good")
    assert (failed.reject, failed.retry_after_ms) == (False, None)
    assert "in work\n" in failed.failure.traceback
    assert "tq/worker/executor.py" not in failed.failure.traceback


def test_an_exception_of_another_module_is_named_with_it() -> None:
    assert failure_of(raising(msgspec.DecodeError("x"))).failure.type == "msgspec.DecodeError"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [True, False])
def test_nothing_that_a_handler_raises_gets_out(error: BaseException, is_async: bool) -> None:
    async def work() -> None:
        raise error

    failed = failure_of(work if is_async else raising(error))

    assert failed.failure.type.endswith(type(error).__name__)
    assert not failed.reject


@pytest.mark.parametrize(
    ("after", "milliseconds"),
    [(None, None), (0, 0), (1.5, 1_500)],
)
@pytest.mark.parametrize("is_returned", [True, False])
def test_a_handler_says_when_to_try_again(after: float | None, milliseconds: int | None, is_returned: bool) -> None:
    retry = Retry(after, "the door is shut")

    failed = failure_of((lambda: retry) if is_returned else raising(retry))

    assert (failed.failure.type, failed.failure.message) == ("Retry", "the door is shut")
    assert (failed.reject, failed.retry_after_ms) == (False, milliseconds)


@pytest.mark.parametrize("after", [1e9, 1e17, 1e300])
def test_a_time_after_the_longest_backoff_is_that(after: float) -> None:
    failed = failure_of(raising(Retry(after)))

    assert (failed.failure.type, failed.retry_after_ms) == ("Retry", BACKOFF_MS_MAX)


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), "soon"])
def test_a_time_that_is_none_is_said_to_be_so(after: float) -> None:
    failed = failure_of(raising(Retry(after)))

    assert failed.failure.type == "ValueError"
    assert repr(after) in failed.failure.message
    assert failed.retry_after_ms is None


@pytest.mark.parametrize("is_returned", [True, False])
def test_a_handler_says_that_trying_again_is_of_no_use(is_returned: bool) -> None:
    failed = failure_of((lambda: Reject("unknown customer")) if is_returned else raising(Reject("unknown customer")))

    assert (failed.failure.type, failed.failure.message) == ("Reject", "unknown customer")
    assert failed.reject


def test_so_do_the_exceptions_that_its_declaration_names() -> None:
    executor = Executor(Registry(), "w")
    executor._registry.add(Handler(raising(FileNotFoundError("gone")), TaskSpec("work"), (LookupError, OSError)))

    outcome = in_a_thread(executor, assigned(executor, "work"))

    assert isinstance(outcome, Failed)
    assert (outcome.failure.type, outcome.reject) == ("FileNotFoundError", True)


@pytest.mark.parametrize(("function", "args"), [(plain_double, ("text",)), (plain_double, ()), (double, (1, 2))])
def test_arguments_that_do_not_fit_are_rejected_and_the_handler_is_not_called(
    function: Callable[..., object], args: tuple[object, ...]
) -> None:
    failed = failure_of(function, *args)

    assert (failed.failure.type, failed.reject) == ("InvalidArguments", True)


def test_what_cannot_be_encoded_is_rejected_for_the_work_is_done() -> None:
    failed = failure_of(unencodable)

    assert (failed.failure.type, failed.reject) == ("NotSerializable", True)
    assert "object" in failed.failure.message


def test_what_is_longer_than_the_broker_takes_is_rejected_with_both_lengths() -> None:
    executor = Executor(registry(work=lambda: b"x" * 1_000), "w")
    executor.result_bytes_max = 1_002
    work = assigned(executor, "work")

    outcome = in_a_thread(executor, work)

    assert isinstance(outcome, Failed)
    assert (outcome.failure.type, outcome.reject) == ("PayloadTooLarge", True)
    assert "1003 bytes" in outcome.failure.message
    assert "1002" in outcome.failure.message


@pytest.mark.parametrize(
    ("stop", "kind", "retry_after_ms"),
    [(Stop.TIMEOUT, "TaskTimeout", None), (Stop.LEAVING, "WorkerStopped", 0)],
)
def test_a_task_that_is_stopped_fails_with_the_reason_and_where_it_was(
    stop: Stop, kind: str, retry_after_ms: int | None
) -> None:
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> Failed:
        executor = Executor(registry(work=work), "w")
        assignment = assigned(executor, "work", timeout_ms=1_500)
        outcomes: list[Outcome] = []
        task = asyncio.create_task(executor.run(assignment, lambda _, outcome: outcomes.append(outcome)))
        await asyncio.sleep(0)
        assignment.stop = stop
        task.cancel()
        await task
        (outcome,) = outcomes
        assert isinstance(outcome, Failed)
        return outcome

    failed = asyncio.run(main())

    assert (failed.failure.type, failed.retry_after_ms, failed.reject) == (kind, retry_after_ms, False)
    assert "in work\n" in failed.failure.traceback
    assert stop is not Stop.TIMEOUT or "1.5 s" in failed.failure.message


def test_a_handler_that_finishes_although_it_was_stopped_has_finished() -> None:
    executor = Executor(registry(work=lambda: 1), "w")
    work = assigned(executor, "work")
    work.stop = Stop.TIMEOUT

    assert in_a_thread(executor, work) == msgspec.msgpack.encode(1)


def test_a_soft_timeout_that_comes_when_the_handler_has_returned_takes_nothing_away() -> None:
    strikes = [SoftTimeout()]

    def spare() -> None:
        if strikes:
            raise strikes.pop()

    executor = Executor(registry(work=soft(1)(plain_double)), "w")
    work = assigned(executor, "work", 4, result_ttl_ms=1_000)

    outcome = contextvars.copy_context().run(executor.run_blocking, work, asyncio.run, spare)

    assert isinstance(outcome, bytes)
    assert msgspec.msgpack.decode(outcome) == 8


def test_long_texts_are_cut_in_the_middle() -> None:
    def deep(n: int, why: str) -> None:
        if n:
            deep(n - 1, why)
        # Different code on every level, or the traceback folds them into one line.
        exec(f"def level{n}(): raise ValueError(why)\nlevel{n}()", {"why": why})

    failed = failure_of(deep, 5, "y" * 50_000)

    assert len(failed.failure.message) <= MESSAGE_CHARACTERS_MAX
    assert len(failed.failure.traceback) <= TRACEBACK_CHARACTERS_MAX
    assert failed.failure.message.endswith("yyy")


def test_text_that_has_no_utf8_is_escaped() -> None:
    name = os.fsdecode(b"caf\xe9")

    failed = failure_of(raising(FileNotFoundError(name)))

    assert failed.failure.message == "caf\\udce9"
    msgspec.msgpack.encode(failed.failure)


class Halt(BaseException):
    """As SystemExit and KeyboardInterrupt, which would also end this test run: on a loop they end the worker."""


class StopsInItsText(Exception):
    def __str__(self) -> str:
        raise Halt


class HasNoText(Exception):
    def __repr__(self) -> str:
        raise RuntimeError

    def __str__(self) -> str:
        raise self


class HasAnotherText(Exception):
    class Text(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:
            raise Halt

        def __len__(self) -> int:
            raise Halt

    def __str__(self) -> str:
        return self.Text("x" * 3_000)


class HasNoTraceback(SyntaxError):
    @property
    def lineno(self) -> int:  # type: ignore[override]
        raise Halt


class IsNothing(Exception):
    @property  # type: ignore[misc]  # it is more than a property elsewhere
    def __class__(self) -> type:
        raise Halt


class Surrogate(Exception):
    pass


class Endless(Exception):
    pass


Surrogate.__qualname__ = "E\ud800"
Endless.__qualname__ = "E" * 100_000

UNTELLABLE = [StopsInItsText, HasNoText, HasAnotherText, HasNoTraceback, IsNothing, Surrogate, Endless]


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
@pytest.mark.parametrize("kind", UNTELLABLE, ids=lambda kind: kind.__name__)
def test_an_exception_that_cannot_be_told_is_a_failure_like_others(kind: type[Exception], way: Way) -> None:
    async def fails() -> object:
        raise kind

    failed = failure_of(fails if way is on_the_loop else raising(kind()), way=way)

    assert (failed.reject, failed.retry_after_ms) == (False, None)
    assert len(failed.failure.type) <= TYPE_CHARACTERS_MAX
    assert len(failed.failure.message) <= MESSAGE_CHARACTERS_MAX
    msgspec.msgpack.encode(failed)


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_a_text_that_cannot_be_made_is_replaced_by_what_came_instead_of_it(way: Way) -> None:
    async def fails() -> object:
        raise StopsInItsText

    failed = failure_of(fails if way is on_the_loop else raising(StopsInItsText()), way=way)

    assert failed.failure.type.endswith("StopsInItsText")
    assert failed.failure.message == "(its text could not be made: Halt)"
    assert "in fails" in failed.failure.traceback or "in work" in failed.failure.traceback


class StopsEncoding(msgspec.Struct):
    @property  # type: ignore[misc]  # it is more than a property elsewhere
    def __class__(self) -> type:
        raise Halt


def stops_encoding() -> object:
    return StopsEncoding()


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_a_result_that_stops_who_looks_at_it_is_rejected_for_the_work_is_done(way: Way) -> None:
    async def returns() -> object:
        return StopsEncoding()

    failed = failure_of(returns if way is on_the_loop else stops_encoding, way=way)

    assert (failed.failure.type, failed.reject) == ("NotSerializable", True)
    assert "Halt" in failed.failure.message


class StopsDecoding(msgspec.Struct):
    x: int

    def __post_init__(self) -> None:
        raise Halt


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_an_argument_that_stops_who_decodes_it_is_rejected(way: Way) -> None:
    async def takes(value: StopsDecoding) -> None:
        raise AssertionError

    def takes_plain(value: StopsDecoding) -> None:
        raise AssertionError

    failed = failure_of(takes if way is on_the_loop else takes_plain, {"x": 1}, way=way)

    assert (failed.failure.type, failed.reject) == ("InvalidArguments", True)
    assert "Halt" in failed.failure.message


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_middleware_that_exits_after_the_handler_changes_nothing(way: Way) -> None:
    class Exits(Middleware):
        def after(self, context: TaskContext, failure: TaskFailure | None) -> None:
            raise Halt

    executor = Executor(registry([Exits()], work=double), "w")

    assert way(executor, assigned(executor, "work", 21)) == msgspec.msgpack.encode(42)


def test_the_depth_of_a_recursion_is_no_trouble() -> None:
    def work() -> None:
        work()

    failed = failure_of(work)

    assert failed.failure.type == "RecursionError"


def test_the_context_says_which_attempt_it_is_and_how_much_time_is_left() -> None:
    seen: list[tuple[TaskContext, float]] = []

    async def work() -> None:
        seen.append((current_task(), current_task().remaining()))

    outcome_of(work, queue="mail", timeout_ms=60_000, attempts=2)

    ((context, remaining),) = seen
    assert (context.name, context.queue, context.attempt, context.worker) == ("work", "mail", 3, "w")
    assert 50 < remaining <= 60


def test_a_task_that_nobody_declared_is_known_to_be_unknown() -> None:
    executor = Executor(registry(work=double), "w")

    assert executor.read(record("work"))[1].is_known
    assert not executor.read(record("other"))[1].is_known


def test_tasks_of_one_kind_share_their_plan() -> None:
    executor = Executor(registry(work=double), "w")

    _, first = executor.read(record("work", 1))
    _, second = executor.read(record("work", 2))
    _, other = executor.read(record("work", 1, priority=7))

    assert first is second
    assert other is not first


def test_a_program_that_makes_up_specs_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.worker.executor._PLANS_MAX", 10)
    executor = Executor(registry(work=double), "w")

    for timeout in range(1, 100):
        executor.read(record("work", timeout_ms=timeout))

    assert len(executor._plans) <= 10


class Recorder(Middleware):
    def __init__(self, name: str, calls: list[object]) -> None:
        self.name, self.calls = name, calls

    def before(self, context: TaskContext) -> None:
        self.calls.append((self.name, "before", context.name))

    def after(self, context: TaskContext, failure: TaskFailure | None) -> None:
        self.calls.append((self.name, "after", failure))


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_middleware_wraps_the_handler_as_layers_do(way: Way) -> None:
    calls: list[object] = []

    async def work() -> None:
        calls.append(sys._getframe().f_code.co_name)

    executor = Executor(registry([Recorder("outer", calls), Recorder("inner", calls)], work=work), "w")

    way(executor, assigned(executor, "work"))

    assert calls == [
        ("outer", "before", "work"),
        ("inner", "before", "work"),
        "work",
        ("inner", "after", None),
        ("outer", "after", None),
    ]


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_a_failure_says_whether_the_handler_came_to_an_end_of_its_own(way: Way) -> None:
    class Refuses(Middleware):
        def before(self, context: TaskContext) -> None:
            raise Retry(after=1)

    async def fails(x: int) -> None:
        await asyncio.sleep(0)
        raise ValueError

    def stopping(executor: Executor, work: Assignment) -> Outcome:
        work.stop = Stop.TIMEOUT
        return way(executor, work)

    async def unencodable(x: int) -> object:
        return object()

    def said(function: Callable[..., object], *args: object, way: Way = way, **spec: Any) -> bool:
        return failure_of(function, *args, way=way, **spec).by_handler

    assert said(fails, 1)
    assert said(unencodable, 1, result_ttl_ms=1_000)
    assert not said(fails, 1, 2)
    assert not said(fails, 1, way=stopping)

    executor = Executor(registry([Refuses()], work=fails), "w")
    refused = way(executor, assigned(executor, "work", 1))
    assert isinstance(refused, Failed)
    assert not refused.by_handler


@pytest.mark.parametrize("way", [on_the_loop, in_a_thread])
def test_middleware_that_raises_before_the_handler_fails_the_attempt(way: Way) -> None:
    class Guard(Middleware):
        def before(self, context: TaskContext) -> None:
            raise PermissionError("not on Sundays")

    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    executor = Executor(registry([Guard()], work=work), "w")

    outcome = way(executor, assigned(executor, "work"))

    assert isinstance(outcome, Failed)
    assert outcome.failure.type == "PermissionError"
    assert not ran
