"""What a simulation lets clients ask for, and what must become of it.

An `Errand` is a task of which it is known beforehand how it will end, whatever happens
to the broker and the workers meanwhile.  Its handler notes in the `Ledger` when it begins
and when it comes to its end; the ledger stands outside of the simulated world, and no
crash takes anything from it.

Invariant: an errand follows from its number and the seed alone.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from tq.app.app import App
from tq.app.context import current_task
from tq.app.registry import Registry
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import Reject, Retry, TaskResult
from tq.core.retry import RetryPolicy
from tq.core.task import Task, TaskSpec, TaskView

QUEUES = ("mail", "reports")
_PRIORITIES = (0, 128, 128, 255)
_RETRIES_MAX = 3
# More than a run has crashes: an innocent task is never buried for the deaths of its workers.
_INNOCENT_LOSSES_MAX = 100
_POISON_LOSSES_MAX = 2
# A worker says that a task has started within a fraction of this; a death before that is nobody's fault.
_POISON_ACTS_AFTER_S = 0.5


class Kind(Enum):
    """What a handler does."""

    SUCCEED = "succeed"
    FAIL = "fail"
    """Raises a few times, then succeeds."""
    RETRY = "retry"
    """Asks for a retry a few times, then succeeds."""
    HOPELESS = "hopeless"
    """Raises until no attempts are left."""
    REJECT = "reject"
    POISON = "poison"
    """Ends the process that runs it."""


_WEIGHTS = {Kind.SUCCEED: 12, Kind.FAIL: 3, Kind.RETRY: 2, Kind.HOPELESS: 1, Kind.REJECT: 1, Kind.POISON: 0.15}
_DEAD = {
    Kind.HOPELESS: DeadReason.ATTEMPTS,
    Kind.REJECT: DeadReason.REJECTED,
    Kind.POISON: DeadReason.LOSSES,
}


class WentWrong(AssertionError):
    """Something happened that must not, whatever the faults."""


class Errand(msgspec.Struct, frozen=True):
    """A task and its fate.  ``times``: how many attempts fail; ``work_s``: how long one takes."""

    number: int
    kind: Kind
    times: int
    work_s: float
    task: Task

    @property
    def id(self) -> TaskId:
        """The task's id, which the errand made itself."""
        assert self.task.id is not None
        return self.task.id

    @property
    def keeps_result(self) -> bool:
        """Whether the broker can tell afterwards that it was completed."""
        return self.task.spec.result_ttl_ms > 0

    @property
    def succeeds(self) -> bool:
        """Whether it is completed in the end; else it is dead."""
        return self.kind not in _DEAD

    @property
    def result(self) -> int:
        """What its handler returns, if it ever does."""
        return 7 * self.number

    def check(self, end: TaskResult | TaskView) -> None:
        """Raise `WentWrong` unless *end* is how it had to end."""
        reason = end.reason.value if isinstance(end.reason, DeadReason) else end.reason
        found = (end.state, reason, end.attempts, end.result)
        dead = _DEAD.get(self.kind)
        expected = (
            TaskState.COMPLETED if dead is None else TaskState.DEAD,
            None if dead is None else dead.value,
            self.times,
            msgspec.msgpack.encode(self.result) if dead is None else None,
        )
        if found != expected:
            raise WentWrong(f"{self}: ended as {found}, should have as {expected}")

    def __str__(self) -> str:
        spec = self.task.spec
        return f"#{self.number} {self.kind.value} x{self.times} {spec.queue}/{spec.priority} {format_id(self.id)}"


class Errands:
    """Makes errands.  *new_id* gives the ids of tasks."""

    def __init__(self, chance: random.Random, new_id: Callable[[], bytes]) -> None:
        self._chance = chance
        self._new_id = new_id
        self.by_number: list[Errand] = []

    def make(self) -> Errand:
        """Return the next one."""
        chance = self._chance
        kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        times = {
            Kind.FAIL: chance.randint(1, _RETRIES_MAX),
            Kind.RETRY: chance.randint(1, _RETRIES_MAX),
            Kind.HOPELESS: _RETRIES_MAX,
            Kind.REJECT: 1,
        }.get(kind, 0)
        spec = TaskSpec(
            kind.value,
            queue=chance.choice(QUEUES),
            priority=chance.choice(_PRIORITIES),
            result_ttl_ms=0 if chance.random() < 0.2 else TaskSpec("").result_ttl_ms,
            retry=RetryPolicy(
                max_attempts=_RETRIES_MAX if kind is Kind.HOPELESS else _RETRIES_MAX + 1,
                backoff_ms=chance.choice((0, 100, 1_000)),
                backoff_max_ms=2_000,
            ),
            max_losses=_POISON_LOSSES_MAX if kind is Kind.POISON else _INNOCENT_LOSSES_MAX,
        )
        work_s = chance.choice((0.0, chance.uniform(0.001, 0.1), chance.uniform(0.1, 3.0)))
        number = len(self.by_number)
        task = Task(spec, msgspec.msgpack.encode(([number], {})), TaskId(self._new_id()))
        errand = Errand(number, kind, times, work_s, task)
        self.by_number.append(errand)
        return errand


class Life:
    """One start of a worker's process, on *host*: what runs in it ends with it.  *kill* ends it."""

    def __init__(self, host: str, kill: Callable[[], None]) -> None:
        self.host = host
        self.kill = kill
        self._is_over = False
        # A dict, for its order.
        self._running: dict[asyncio.Task[Any], None] = {}

    def enter(self) -> None:
        """Let the running asyncio task be part of this life; one that comes too late ends here."""
        task = asyncio.current_task()
        assert task is not None, "handlers run in tasks"
        if self._is_over:
            raise asyncio.CancelledError
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    def end(self) -> None:
        """End all that runs."""
        self._is_over = True
        for task in list(self._running):
            task.cancel()


class Ledger:
    """What really happened.  *note* is told of every step of a handler, *accuse* of one that must not be."""

    def __init__(self, errands: Errands, note: Callable[[str], None], accuse: Callable[[BaseException], None]) -> None:
        self._errands = errands
        self._note = note
        self._accuse = accuse
        self.begun: Counter[int] = Counter()
        self.returned: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()
        self.acknowledged: dict[int, Errand] = {}
        """Those whose client was told that they are enqueued."""
        self.doubtful: dict[int, Errand] = {}
        """Those whose client was not told, one way or the other."""

    def handlers(self, life: Life) -> Registry:
        """Return the handlers for one life of a worker."""
        app = App("memory:")
        for kind in Kind:

            def declare(kind: Kind) -> None:
                @app.task(name=kind.value)
                async def run(number: int) -> int:
                    return await self._run(number, kind, life)

            declare(kind)
        return app.registry

    async def _run(self, number: int, kind: Kind, life: Life) -> int:
        life.enter()
        errand = self._errands.by_number[number]
        context = current_task()
        if (context.task_id, kind) != (errand.id, errand.kind):
            self._accuse(WentWrong(f"{errand}: its arguments came to {context.name} {context.id}"))
        self.begun[number] += 1
        self._note(f"{life.host} begins {errand}, attempt {context.attempt}, losses {context.losses}")
        await asyncio.sleep(errand.work_s)
        if kind is Kind.POISON:
            await asyncio.sleep(_POISON_ACTS_AFTER_S)
            life.kill()
            await asyncio.sleep(0)  # Here its own cancellation comes.
        if context.attempt <= errand.times:
            self.failed[number] += 1
            self._note(f"{life.host} fails {errand}")
            if kind is Kind.REJECT:
                raise Reject
            raise Retry(after=0.3) if kind is Kind.RETRY else RuntimeError("meant to")
        self.returned[number] += 1
        self._note(f"{life.host} ends {errand}")
        return errand.result

    def check(self, errand: Errand, end: TaskView) -> None:
        """Raise `WentWrong` if more is held against a task than its handler has done, or it ended by itself."""
        begun, failed = self.begun[errand.number], self.failed[errand.number]
        is_completed = end.state is TaskState.COMPLETED
        tries = end.attempts + end.losses + is_completed
        if end.attempts > failed or tries > begun or (is_completed and not self.returned[errand.number]):
            raise WentWrong(
                f"{errand}: {end.state.value} with {end.attempts} attempts and {end.losses} losses; it was begun "
                f"{begun} times, failed {failed} times and returned {self.returned[errand.number]} times"
            )
