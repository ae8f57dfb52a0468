"""Runs one task, in five steps: decode, context, call, outcome, settle.

How an attempt ends, and what becomes of it:

    the handler                                 outcome
    returns a value                             done, with the value encoded
    raises                                      failed: tried again by the task's policy
    raises or returns Retry(after)              failed: tried again after that time
    raises or returns Reject                    failed for good (the dead letter)
    raises a type of its `reject_on`            failed for good
    cannot be called with these arguments       failed for good: InvalidArguments
    returns what cannot be encoded              failed for good: NotSerializable
    returns more than the broker takes          failed for good: PayloadTooLarge
    runs longer than its soft timeout           may go on; if it does not catch it, failed: SoftTimeout
    runs longer than its timeout                failed: TaskTimeout
    is still running when its worker must go    failed: WorkerStopped, tried again at once
    raises SystemExit or KeyboardInterrupt      failed, and the worker lives on
    raises what has no text, or ends the asker  failed, and the text says so
    forks                                       the copy ends where its handler does, and tells nothing

A result that cannot be kept is final: the handler has done its work, another attempt
would do the work again and end alike.  The failure names the task, it can be redriven
once the handler is mended.

Invariant: nothing that a handler does, but killing the process, leaves `run` or
`run_blocking` as an exception.
"""

import asyncio
import functools
import os
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tq.app.context import SoftTimeout, TaskContext, enter
from tq.app.registry import Registry
from tq.core.errors import NotSerializable, UsageError
from tq.core.limits import PAYLOAD_BYTES_DEFAULT_MAX
from tq.core.outcome import (
    MESSAGE_CHARACTERS_MAX,
    TRACEBACK_CHARACTERS_MAX,
    TYPE_CHARACTERS_MAX,
    Reject,
    Retry,
    TaskFailure,
    shorten,
)
from tq.core.retry import BACKOFF_MS_MAX
from tq.core.task import TaskSpec
from tq.core.times import milliseconds
from tq.worker.assignment import Assignment, Delivered, Failed, Outcome, Plan, Stop
from tq.worker.forks import end_copy
from tq.worker.middleware import Chain
from tq.worker.soft import softly

# Distinct specs are few; a program that makes them up (a priority for each call) must not fill the memory.
_PLANS_MAX = 10_000

_BELOW_THE_HANDLER = (str(Path(__file__).parent), str(Path(asyncio.__file__).parent))

_delivered = msgspec.msgpack.Decoder(Delivered)
_spec = msgspec.msgpack.Decoder(TaskSpec)


class Executor:
    """Knows the handlers and calls them.  Used by one event loop, or by many threads at once.

    ``worker`` is the worker's name, for the context.  ``result_bytes_max`` is the longest
    result that the broker takes, as it says in its `Welcome`.  ``provided`` is what the
    app's hooks give to handlers, by annotation; it is set before the first task.
    """

    def __init__(self, registry: Registry, worker: str) -> None:
        self.result_bytes_max = PAYLOAD_BYTES_DEFAULT_MAX
        self.provided: Mapping[Any, Any] = {}
        self._registry = registry
        self._chain = Chain(registry.middleware) if registry.middleware else None
        self._worker = worker
        self._plans: dict[bytes, Plan] = {}
        self._pid = os.getpid()

    def read(self, record: bytes | msgspec.Raw) -> tuple[Delivered, Plan]:
        """Return a delivered record, and what the worker knows of its kind.

        Raises:
            msgspec.DecodeError: The bytes are no task record.
        """
        task = _delivered.decode(record)
        return task, self.plan(task.spec)

    async def run(self, work: Assignment, settle: Callable[[Assignment, Outcome], None]) -> None:
        """Run an ``async def`` handler and hand its outcome to *settle*."""
        plan, chain = work.plan, self._chain
        try:
            args, kwargs = plan.decode(work.task.payload, plan.codec)  # 1. decode
        except BaseException as error:  # noqa: BLE001  # a validator is a user's code too
            return settle(work, _unfit(work, error))
        context = self._enter(work)  # 2. context
        outcome: Outcome
        is_called = False
        try:
            if chain is not None:
                chain.before(context)
            is_called = True
            coroutine = plan.function(*args, **kwargs)
            value = await (coroutine if plan.soft_timeout_s is None else softly(coroutine, work))  # 3. call
        except BaseException as error:  # noqa: BLE001  # the boundary of a task
            outcome = self._raised(work, error, by_handler=is_called)
        else:
            outcome = self._returned(work, value)  # 4. outcome
        if chain is not None:
            chain.after(context, outcome)
        return settle(work, outcome)  # 5. settle

    def run_blocking(
        self,
        work: Assignment,
        drive: Callable[[Coroutine[Any, Any, Any]], Any],
        spare: Callable[[], None],
    ) -> Outcome:
        """Run a handler in this thread and return its outcome: the same steps, but the last.

        *drive* runs a coroutine to its end, for an ``async def`` handler in a pool of
        threads or processes.  *spare* is called once a plain handler with a soft timeout has returned:
        from then on no `SoftTimeout` is raised here.
        """
        plan, chain = work.plan, self._chain
        try:
            args, kwargs = plan.decode(work.task.payload, plan.codec)
        except BaseException as error:  # noqa: BLE001  # as above
            return _unfit(work, error)
        context = self._enter(work)
        outcome: Outcome
        is_called = False
        try:
            if chain is not None:
                chain.before(context)
            is_called = True
            if plan.is_async:
                coroutine = plan.function(*args, **kwargs)
                value = drive(coroutine if plan.soft_timeout_s is None else softly(coroutine, work))
            elif plan.soft_timeout_s is None:
                value = plan.function(*args, **kwargs)
            else:
                value = _called(functools.partial(plan.function, *args, **kwargs), spare)
        except BaseException as error:  # noqa: BLE001  # the boundary of a task
            outcome = self._raised(work, error, by_handler=is_called)
        else:
            outcome = self._returned(work, value)
        if chain is not None:
            chain.after(context, outcome)
        return outcome

    def plan(self, spec: msgspec.Raw) -> Plan:
        """Return what the worker knows of the tasks with *spec*."""
        encoded = bytes(spec)
        plan = self._plans.get(encoded)
        if plan is None:
            decoded = _spec.decode(encoded)
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            plan = self._plans[encoded] = Plan(decoded, self._registry.get(decoded.name), self.provided)
        return plan

    def _enter(self, work: Assignment) -> TaskContext:
        task, plan = work.task, work.plan
        context = TaskContext(
            task.id,
            plan.name,
            plan.spec.queue,
            task.attempts + 1,
            task.losses,
            task.generation,
            task.enqueued_at,
            time.monotonic() + plan.timeout_s,
            self._worker,
        )
        # Each task has a contextvars.Context of its own, so nothing needs to be set back.
        enter(context)
        return context

    def _returned(self, work: Assignment, value: object) -> Outcome:
        if os.getpid() != self._pid:
            end_copy(None)
        plan = work.plan
        try:
            if isinstance(value, Retry | Reject):
                return self._raised(work, value)
            if not plan.keeps_result:
                return None
            result = plan.encode_result(value, plan.codec)
        except BaseException as error:  # noqa: BLE001  # code of the value's class
            return _unkept(work, error)
        if len(result) > self.result_bytes_max:
            text = (
                f"task {plan.name!r}: its result has {len(result)} bytes, the broker takes "
                f"{self.result_bytes_max}; store it elsewhere and return a reference"
            )
            return Failed(TaskFailure("PayloadTooLarge", text), reject=True)
        return result

    def _raised(self, work: Assignment, error: BaseException, *, by_handler: bool = True) -> Failed:
        if os.getpid() != self._pid:
            end_copy(error)
        failure = _described(error)
        try:
            is_retry = isinstance(error, Retry)
            rejected = isinstance(error, (Reject, *work.plan.reject_on))
            if isinstance(error, SoftTimeout):
                failure = reminded(work, failure.traceback).failure
        except BaseException:  # noqa: BLE001  # code of the exception's class: what is no sort of anything is a failure
            is_retry = rejected = False
        # Looked at last: the interruption of a stop may have come in any step above.
        if work.stop is not None:
            return stopped(work, failure.traceback)
        failed = _retried(error, failure) if is_retry else Failed(failure, reject=rejected)
        return failed if by_handler else msgspec.structs.replace(failed, by_handler=False)


def _called(handler: Callable[[], object], spare: Callable[[], None]) -> object:
    """Return what *handler* does; a `SoftTimeout` that comes when it has returned takes nothing away."""
    # Whatever comes between two steps of the interpreter comes after its value is kept: `defaultdict` calls and
    # keeps in one.  A call in Python would be followed by a step in which the value can be lost.
    kept: defaultdict[None, object] = defaultdict(handler)
    try:
        kept[None]
        spare()
    except SoftTimeout:
        if None not in kept:
            raise
        # It is raised once for a task.
        spare()
    return kept[None]


def stopped(work: Assignment, trace: str = "") -> Failed:
    """Return the failure of a task that was stopped, as ``work.stop`` says; *trace* tells where it was.

    One that was left behind by its worker has started, so it cannot be handed back as if
    it had not: the attempt counts, but is made again at once.
    """
    if work.stop is Stop.LEAVING:
        text = "its worker was told to stop, and could not wait for it longer"
        return Failed(TaskFailure("WorkerStopped", text, trace), retry_after_ms=0, by_handler=False)
    # Nobody hears of the outcome of a lost lease.
    text = f"it ran longer than its timeout of {work.plan.timeout_s:g} s"
    return Failed(TaskFailure("TaskTimeout", text, trace), by_handler=False)


def reminded(work: Assignment, trace: str = "") -> Failed:
    """Return the failure of a task that let the `SoftTimeout` raised in it go on; *trace* tells where it was."""
    text = f"it ran longer than its soft timeout of {work.plan.soft_timeout_s or 0:g} s"
    return Failed(TaskFailure(SoftTimeout.__name__, text, trace), by_handler=False)


def process_died(text: str, last_words: str = "") -> Failed:
    """Return the failure of a task whose process ended under it: *text* says how, *last_words* is what it said."""
    trace = f"The last that the process wrote to its standard error:\n{last_words}" if last_words else ""
    return Failed(TaskFailure("WorkerProcessDied", text, trace), by_handler=False)


def _unfit(work: Assignment, error: BaseException) -> Failed:
    failed = _final(work, error, UsageError, "InvalidArguments", "its arguments cannot be read")
    return msgspec.structs.replace(failed, by_handler=False)


def _unkept(work: Assignment, error: BaseException) -> Failed:
    return _final(work, error, NotSerializable, "NotSerializable", "its result cannot be encoded")


def _final(work: Assignment, error: BaseException, expected: type[Exception], kind: str, what: str) -> Failed:
    """Return a failure of *kind* that no other attempt would mend.

    An *error* of another class than *expected* is none of ours: it came out of a user's code.
    """
    if work.stop is not None:
        return stopped(work)
    if isinstance(error, SoftTimeout):
        return reminded(work)
    if isinstance(error, expected):
        return Failed(TaskFailure(kind, _text_of(_message, error)), reject=True)
    text = f"task {work.plan.name!r}: {what}: {_text_of(_name, error)}: {_text_of(_message, error)}"
    return Failed(TaskFailure(kind, _cut(text), _text_of(_traceback, error)), reject=True)


def _retried(error: BaseException, failure: TaskFailure) -> Failed:
    assert isinstance(error, Retry)
    try:
        after = None if error.after is None else min(milliseconds(error.after), BACKOFF_MS_MAX)
    except BaseException as wrong:  # noqa: BLE001  # arithmetic of whatever it holds
        # The handler asked for a time that is none: say so, and wait by the policy.
        text = f"Retry(after={_text_of(lambda retry: repr(retry.after), error)}): {_text_of(_message, wrong)}"
        return Failed(TaskFailure("ValueError", _cut(text), failure.traceback))
    return Failed(failure, after)


def _described(error: BaseException) -> TaskFailure:
    """Return *error* as texts that can be sent, whatever its class makes of that."""
    return TaskFailure(_text_of(_name, error), _text_of(_message, error), _text_of(_traceback, error))


def _text_of(make: Callable[[Any], str], error: BaseException) -> str:
    """Return the text that *make* makes of *error*, or that there is none: it runs code of the error's class."""
    try:
        return make(error)
    except BaseException as wrong:  # noqa: BLE001  # one that is raised on purpose, SystemExit for one, too
        return f"(its text could not be made: {type(wrong).__name__})"


def _name(error: BaseException) -> str:
    kind = type(error)
    if kind.__module__ == "builtins" or kind.__module__.startswith("tq."):
        return _cut(kind.__qualname__, TYPE_CHARACTERS_MAX)
    return _cut(f"{kind.__module__}.{kind.__qualname__}", TYPE_CHARACTERS_MAX)


def _message(error: BaseException) -> str:
    return _cut(str(error))


def _traceback(error: BaseException) -> str:
    # From the handler on: the frames below it tell its author nothing.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_BELOW_THE_HANDLER):
        trace = trace.tb_next
    if trace is None:
        return ""
    lines = traceback.TracebackException(type(error), error, trace, compact=True).format()
    return _cut("".join(lines), TRACEBACK_CHARACTERS_MAX)


def _cut(text: str, characters_max: int = MESSAGE_CHARACTERS_MAX) -> str:
    # As `str` itself has it: it may be of a class that redefines every method used here.
    short = shorten(str.__str__(text), characters_max)
    # A lone surrogate (from a file name, often) has no UTF-8.
    return shorten(short.encode("utf-8", "backslashreplace").decode(), characters_max)
