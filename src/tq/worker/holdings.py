"""What a worker holds: tasks that wait, run, or have an outcome that is not settled yet.

Invariant: an outcome stays here until the broker has said that it is durable, or that it
came too late: a lost connection loses none.  No I/O and no clock: the dispatcher moves
the tasks, and owns this.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from tq.core.lease import DeliveryRef
from tq.core.outcome import MESSAGE_CHARACTERS_MAX, Done, FailedAttempt, TaskFailure, shorten
from tq.protocol.messages import Held, Limits, Settle
from tq.worker.assignment import Assignment, Delivered, Failed, Outcome, Plan, Stage

# Room for the numbers and the heads around the texts, counted generously: a bound, not a measure.
_OUTCOME_BYTES = 32
# UTF-8 needs up to four bytes for a character.
_CHARACTER_BYTES = 4


class Batch(NamedTuple):
    """Outcomes for one frame, and how much they count against the bound on what is unsettled."""

    settle: Settle
    size: int

    def singles(self) -> Iterator["Batch"]:
        """Yield each outcome as a batch of its own."""
        for done in self.settle.done:
            yield Batch(Settle([done]), _done_bytes(done.result))
        for failed in self.settle.failed:
            yield Batch(Settle([], [failed]), _failure_bytes(failed.failure))

    def unsendable(self, why: str) -> "Batch":
        """Return the batch of a single outcome that cannot be sent, as a failure that says so.

        What the handler has done is not done again for that; what failed may be tried again.
        """
        names = [(done.token, done.index, True) for done in self.settle.done]
        names += [(failed.token, failed.index, failed.reject) for failed in self.settle.failed]
        ((token, index, is_final),) = names
        failure = TaskFailure("NotSerializable", shorten(f"its outcome cannot be sent: {why}", MESSAGE_CHARACTERS_MAX))
        return Batch(Settle([], [FailedAttempt(token, index, failure, reject=is_final)]), self.size)


class Holdings:
    """All that is held, found by the token of its delivery and its index there."""

    def __init__(self) -> None:
        self.running: set[Assignment] = set()
        self.unsettled_bytes = 0
        self._deliveries: dict[int, dict[int, Assignment]] = {}
        self._waiting: deque[Assignment] = deque()
        self._done: list[Done] = []
        self._failed: list[FailedAttempt] = []
        self._unsent_bytes = 0
        self._sent: dict[int, Batch] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, runs or waits to be settled."""
        return not (self._deliveries or self.running or self.unsettled_bytes)

    @property
    def has_waiting(self) -> bool:
        """Whether a task waits to be started."""
        while self._waiting and self._waiting[0].stage is not Stage.WAITING:
            self._waiting.popleft()
        return bool(self._waiting)

    @property
    def has_unsent(self) -> bool:
        """Whether an outcome waits to be sent."""
        return self._unsent_bytes > 0

    @property
    def batches_sent(self) -> int:
        """How many batches of outcomes the broker has not answered yet."""
        return len(self._sent)

    @property
    def unsettled(self) -> int:
        """How many outcomes are not known to be durable."""
        sent = sum(len(settle.done) + len(settle.failed) for settle, _ in self._sent.values())
        return len(self._done) + len(self._failed) + sent

    def accept(self, token: int, tasks: Iterable[tuple[Delivered, Plan]], now: float) -> list[Assignment]:
        """Take in the tasks of a delivery: they wait in their order, behind those that wait already."""
        taken = [Assignment(token, index, task, plan, now) for index, (task, plan) in enumerate(tasks)]
        self._deliveries[token] = {work.index: work for work in taken}
        self._waiting.extend(taken)
        return taken

    def next(self, count: int) -> list[Assignment]:
        """Return the first *count* tasks that wait."""
        return list(islice((work for work in self._waiting if work.stage is Stage.WAITING), count))

    def start(self, now: float) -> Assignment | None:
        """Return the task whose turn it is, and which runs from now on; None when none waits."""
        waiting = self._waiting
        while waiting:
            work = waiting.popleft()
            if work.stage is Stage.WAITING:
                work.stage = Stage.RUNNING
                work.started_at = now
                self.running.add(work)
                return work
        return None

    def finish(self, work: Assignment, outcome: Outcome) -> bool:
        """Note that *work* runs no more; return whether its outcome counts."""
        self.running.discard(work)
        # It may lead back to the assignment: a cycle would keep both until the next garbage collection.
        work.run_by = None
        if work.stage is not Stage.RUNNING:
            return False
        work.stage = Stage.FINISHED
        if isinstance(outcome, Failed):
            self._failed.append(
                FailedAttempt(work.token, work.index, outcome.failure, outcome.retry_after_ms, outcome.reject)
            )
            size = _failure_bytes(outcome.failure)
        else:
            self._done.append(Done(work.token, work.index, outcome))
            size = _done_bytes(outcome)
        self._unsent_bytes += size
        self.unsettled_bytes += size
        return True

    def take_batch(self, limits: Limits) -> Batch:
        """Take out as many outcomes as one frame may bring to the broker; there are some.

        The caller sends them and then calls `sent`.
        """
        tasks_max, bytes_max = limits.tasks_per_frame_max, limits.frame_bytes_max
        if len(self._done) + len(self._failed) <= tasks_max and self._unsent_bytes <= bytes_max:
            whole = Batch(Settle(self._done, self._failed), self._unsent_bytes)
            self._done, self._failed, self._unsent_bytes = [], [], 0
            return whole
        done = _fitting([_done_bytes(done.result) for done in self._done], tasks_max, bytes_max)
        failed = 0
        if done == 0:
            failed = _fitting([_failure_bytes(f.failure) for f in self._failed], tasks_max, bytes_max)
        settle = Settle(self._done[:done], self._failed[:failed])
        del self._done[:done], self._failed[:failed]
        part = Batch(settle, _settle_bytes(settle))
        self._unsent_bytes -= part.size
        return part

    def sent(self, correlation: int, batch: Batch) -> None:
        """Note that *batch* is under way as request *correlation*."""
        self._sent[correlation] = batch

    def settled(self, correlation: int) -> Settle:
        """Forget the outcomes sent as request *correlation*: durable or too late, they are done with."""
        settle, size = self._sent.pop(correlation)
        self.unsettled_bytes -= size
        for done in settle.done:
            self._forget(done.token, done.index)
        for failed in settle.failed:
            self._forget(failed.token, failed.index)
        return settle

    def unsettle(self, correlation: int) -> None:
        """Put the outcomes sent as request *correlation*, which had no effect, back to be sent again."""
        settle, size = self._sent.pop(correlation)
        self._done = settle.done + self._done
        self._failed = settle.failed + self._failed
        self._unsent_bytes += size

    def unsettle_all(self) -> None:
        """Put back everything that is under way: the connection it was sent on is gone."""
        for correlation in list(self._sent):
            self.unsettle(correlation)

    def held(self) -> list[Held]:
        """Return what is held, as a reconnecting worker says it: started is what has begun, and what was marked."""
        return [
            Held(
                token,
                list(delivery),
                [index for index, work in delivery.items() if work.stage is not Stage.WAITING and work.has_begun],
            )
            for token, delivery in self._deliveries.items()
        ]

    def hand_back(self, received_by: float) -> list[DeliveryRef]:
        """Give up the tasks that wait since *received_by* or longer; return what names them, for a `Release`."""
        given_up: list[DeliveryRef] = []
        waiting = self._waiting
        while waiting and waiting[0].received_at <= received_by:
            work = waiting.popleft()
            if work.stage is Stage.WAITING:
                work.stage = Stage.GONE
                self._forget(work.token, work.index)
                given_up.append(DeliveryRef(work.token, work.index))
        return given_up

    def give_up_marked(self) -> list[DeliveryRef]:
        """Give up the tasks that wait and are marked as started; return what names them, for a `Release`."""
        return [self.refuse(work) for work in self._waiting if work.stage is Stage.WAITING and work.marked]

    def refuse(self, work: Assignment) -> DeliveryRef:
        """Give up a task that waits, or that had not begun; return what names it, for a `Release`."""
        self.running.discard(work)
        work.run_by = None
        work.stage = Stage.GONE
        self._forget(work.token, work.index)
        return DeliveryRef(work.token, work.index)

    def lose(self, tasks: Iterable[DeliveryRef]) -> tuple[list[Assignment], int]:
        """Forget tasks whose leases are lost.

        Returns those that run and are to be stopped, and how many outcomes were dropped.
        """
        lost = set(tasks)
        to_stop: list[Assignment] = []
        unsent = len(self._done) + len(self._failed)
        has_finished = False
        for ref in lost:
            work = self._deliveries.get(ref.token, {}).get(ref.index)
            if work is None:
                continue
            has_finished |= work.stage is Stage.FINISHED
            if work.stage is Stage.RUNNING:
                to_stop.append(work)
            work.stage = Stage.GONE
            self._forget(ref.token, ref.index)
        if has_finished:
            # Those under way are left to the broker, which answers for each.
            self._done = [done for done in self._done if DeliveryRef(done.token, done.index) not in lost]
            self._failed = [f for f in self._failed if DeliveryRef(f.token, f.index) not in lost]
            size = _settle_bytes(Settle(self._done, self._failed))
            self.unsettled_bytes += size - self._unsent_bytes
            self._unsent_bytes = size
        return to_stop, unsent - len(self._done) - len(self._failed)

    def lose_session(self) -> list[Assignment]:
        """Forget all but the outcomes, which are sent once more; return what runs and is to be stopped.

        The broker does not know this worker any more: its leases have ended, all of them.
        """
        to_stop = [work for work in self.running if work.stage is Stage.RUNNING]
        for work in (*to_stop, *self._waiting):
            work.stage = Stage.GONE
        self._deliveries.clear()
        self._waiting.clear()
        return to_stop

    def _forget(self, token: int, index: int) -> None:
        delivery = self._deliveries.get(token)
        if delivery is not None:
            delivery.pop(index, None)
            if not delivery:
                del self._deliveries[token]


def _fitting(sizes: list[int], tasks_max: int, bytes_max: int) -> int:
    """Return how many of *sizes*, from the first, stay within the bounds: at least one if there is one."""
    total = 0
    for count, size in enumerate(sizes[:tasks_max]):
        total += size
        if total > bytes_max and count:
            return count
    return min(len(sizes), tasks_max)


def _done_bytes(result: bytes | None) -> int:
    return _OUTCOME_BYTES + len(result) if result else _OUTCOME_BYTES


def _failure_bytes(failure: TaskFailure) -> int:
    characters = len(failure.type) + len(failure.message) + len(failure.traceback)
    return _OUTCOME_BYTES + characters * _CHARACTER_BYTES


def _settle_bytes(settle: Settle) -> int:
    return sum(_done_bytes(done.result) for done in settle.done) + sum(
        _failure_bytes(failed.failure) for failed in settle.failed
    )
