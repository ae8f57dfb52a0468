"""What a simulation lets clients ask for, and what becomes of it while nobody interferes.

An `Errand` is a task of which it is known beforehand how it will end, whatever happens
to the broker and the workers meanwhile; an operator may withdraw it or redrive it
(`tq.testing.fates`).  Its handler notes in the `Ledger` when it begins and when it comes to
its end; the ledger stands outside of the simulated world, and no crash takes anything from it.

Invariant: what an errand is follows from the event that makes it and its place in it.
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

PURGED = "spool"
"""The one queue that operators purge."""
QUEUES = ("mail", "reports", PURGED)
SHORT_TTL_MS = 3_000
"""How long the results are kept that are to be gone before the run is over."""
_PRIORITIES = (0, 128, 128, 255)
_RETRIES_MAX = 3
# More than a run has crashes: an innocent task is never buried for the deaths of its workers, or of their children.
_INNOCENT_LOSSES_MAX = 100
_INNOCENT_ATTEMPTS_MAX = 100
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
    """A task and its fate.

    ``times``: how many attempts fail; ``work_s``: how long one takes; ``after_s``: what it
    asks to wait before a retry; ``is_cured``: what dies of itself succeeds once redriven.
    """

    number: int
    kind: Kind
    times: int
    work_s: float
    after_s: float
    is_cured: bool
    made_at: float
    task: Task

    @property
    def id(self) -> TaskId:
        """The task's id, which the errand made itself."""
        assert self.task.id is not None
        return self.task.id

    @property
    def queue(self) -> str:
        """Its queue."""
        return self.task.spec.queue

    @property
    def ttl_ms(self) -> int:
        """How long its end is kept."""
        return self.task.spec.result_ttl_ms

    @property
    def is_kept(self) -> bool:
        """Whether the broker can tell at the end of the run how it ended."""
        return self.ttl_ms > SHORT_TTL_MS

    @property
    def result(self) -> int:
        """What its handler returns, if it ever does."""
        return 7 * self.number

    def succeeds(self, generation: int = 1) -> bool:
        """Whether it is completed in the end of *generation*; else it is dead."""
        return self.kind not in _DEAD or (self.is_cured and generation > 1)

    def fails(self, attempt: int, generation: int) -> bool:
        """Whether its handler raises."""
        if not self.succeeds(generation):
            return True
        return generation == 1 and attempt <= self.times

    def fits(self, end: TaskResult | TaskView, generation: int, interrupted: int) -> bool:
        """Whether *end* is how it has to end in *generation*; *interrupted* attempts, at most, failed besides."""
        reason = end.reason.value if isinstance(end.reason, DeadReason) else end.reason
        if self.succeeds(generation):
            result = msgspec.msgpack.encode(self.result) if self.ttl_ms else None
            expected: tuple[TaskState, str | None, bytes | None] = (TaskState.COMPLETED, None, result)
            times = self.times if generation == 1 else 0
        else:
            expected = (TaskState.DEAD, _DEAD[self.kind].value, None)
            times = self.times
        most = times if self.kind is Kind.HOPELESS and not self.succeeds(generation) else times + interrupted
        return (end.state, reason, end.result) == expected and times <= end.attempts <= most

    def __str__(self) -> str:
        spec = self.task.spec
        return f"#{self.number} {self.kind.value} x{self.times} {spec.queue}/{spec.priority} {format_id(self.id)}"


class Errands:
    """Makes errands.  *new_id* gives the ids of tasks, *now* the seconds since the start."""

    def __init__(self, new_id: Callable[[], bytes], now: Callable[[], float]) -> None:
        self._new_id = new_id
        self.now = now
        self.by_number: list[Errand] = []
        self.by_id: dict[bytes, Errand] = {}

    def make(self, chance: random.Random) -> Errand:
        """Return the next one, as *chance* has it."""
        kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        times = {
            Kind.FAIL: chance.randint(1, _RETRIES_MAX),
            Kind.RETRY: chance.randint(1, _RETRIES_MAX),
            Kind.HOPELESS: _RETRIES_MAX,
            Kind.REJECT: 1,
        }.get(kind, 0)
        kept = chance.random()
        spec = TaskSpec(
            kind.value,
            queue=chance.choice(QUEUES),
            priority=chance.choice(_PRIORITIES),
            result_ttl_ms=0 if kept < 0.15 else SHORT_TTL_MS if kept < 0.3 else TaskSpec("").result_ttl_ms,
            retry=RetryPolicy(
                max_attempts=_RETRIES_MAX if kind is Kind.HOPELESS else _INNOCENT_ATTEMPTS_MAX,
                backoff_ms=chance.choice((0, 100, 1_000)),
                backoff_max_ms=2_000,
            ),
            max_losses=_POISON_LOSSES_MAX if kind is Kind.POISON else _INNOCENT_LOSSES_MAX,
        )
        work_s = chance.choice((0.0, chance.uniform(0.001, 0.1), chance.uniform(0.1, 3.0)))
        after_s = chance.choice((0.0, 0.3, 2.0))
        is_cured = kind in {Kind.HOPELESS, Kind.REJECT} and chance.random() < 0.5
        number = len(self.by_number)
        task = Task(spec, msgspec.msgpack.encode(([number], {})), TaskId(self._new_id()))
        errand = Errand(number, kind, times, work_s, after_s, is_cured, self.now(), task)
        self.by_number.append(errand)
        self.by_id[errand.id] = errand
        return errand


class Life:
    """One start of a worker's process, on *host*: what runs in it ends with it.  *kill* ends it."""

    def __init__(self, host: str, kill: Callable[[], None], *, has_children: bool) -> None:
        self.host = host
        self.kill = kill
        self.has_children = has_children
        """Whether handlers run in processes of their own, whose deaths are failed attempts."""
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
        self.returned_at: dict[int, float] = {}
        self.failed: Counter[int] = Counter()
        self.interrupted: Counter[int] = Counter()
        """How often a handler was ended from outside in a child process, which may count as a failed attempt."""
        self.acknowledged: dict[int, Errand] = {}
        """Those whose client was told that they are enqueued."""
        self.doubtful: dict[int, Errand] = {}
        """Those whose client was not told, one way or the other."""
        self.sent_again: set[int] = set()
        """Those that may be sent again with their ids: to the broker, one it has forgotten meanwhile is a new task."""

    def know(self, errands: list[Errand]) -> None:
        """Note that a client was told that *errands* are enqueued."""
        for errand in errands:
            self.acknowledged[errand.number] = errand
            self.doubtful.pop(errand.number, None)

    def doubt(self, errands: list[Errand]) -> None:
        """Note that a client was not told what became of *errands*."""
        self.doubtful.update({errand.number: errand for errand in errands})

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
        self._note(
            f"{life.host} begins {errand}, generation {context.generation}, attempt {context.attempt}, "
            f"losses {context.losses}"
        )
        try:
            await asyncio.sleep(errand.work_s)
            if kind is Kind.POISON:
                await asyncio.sleep(_POISON_ACTS_AFTER_S)
                life.kill()
                await asyncio.sleep(0)  # Here its own cancellation comes.
        except asyncio.CancelledError:
            self.interrupted[number] += life.has_children
            raise
        if errand.fails(context.attempt, context.generation):
            self.failed[number] += 1
            self._note(f"{life.host} fails {errand}")
            if kind is Kind.REJECT:
                raise Reject
            raise Retry(after=errand.after_s) if kind is Kind.RETRY else RuntimeError("meant to")
        self.returned[number] += 1
        self.returned_at[number] = self._errands.now()
        self._note(f"{life.host} ends {errand}")
        return errand.result

    def check(self, errand: Errand, end: TaskView) -> None:
        """Raise `WentWrong` if more is held against a task than its handler has done, or it ended by itself."""
        begun, failed = self.begun[errand.number], self.failed[errand.number] + self.interrupted[errand.number]
        is_completed = end.state is TaskState.COMPLETED
        tries = end.attempts + end.losses + is_completed
        if end.attempts > failed or tries > begun or (is_completed and not self.returned[errand.number]):
            raise WentWrong(
                f"{errand}: {end.state.value} with {end.attempts} attempts and {end.losses} losses; it was begun "
                f"{begun} times, failed {failed} times and returned {self.returned[errand.number]} times"
            )
