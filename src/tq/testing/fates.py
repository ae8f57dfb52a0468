"""Fates: what may have become of each errand, given what operators did to it.

What an operator asks for is noted when it is sent (from then on it may happen), and again
when the answer comes (then it has happened, or has not).  An answer that is lost leaves the
doubt for ever: what was sent may still arrive.

Invariant: a fate is never narrower than what was asked for allows, nor wider than what was
answered leaves open.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.task import TaskView
from tq.testing.workload import PURGED, SHORT_TTL_MS, Errand, Ledger, WentWrong

# The engine's clock runs a quarter faster than time at most, and steps by little more than a second besides.
_FASTEST = 1.25
_STEP_S = 1.5


class _Purge(msgspec.Struct):
    """A purge; without an answer it may come at any later time."""

    sent_at: float
    answered_at: float = math.inf


class Fates:
    """What was done, and what may have been.  *now* gives the seconds since the start."""

    def __init__(self, ledger: Ledger, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._now = now
        self._cancelled: set[int] = set()
        self._cancels: Counter[int] = Counter()
        self._refused_cancels: Counter[int] = Counter()
        self._forgotten: set[int] = set()
        self._maybe_forgotten: set[int] = set()
        self._redriven: Counter[int] = Counter()
        self._redriven_at_most: Counter[int] = Counter()
        self._purges: list[_Purge] = []
        self._withdrawn: dict[int, str] = {}
        self._paused: set[str] = set()
        self._resume_may_come: set[str] = set()
        self._handed_out: set[int] = set()
        self.is_doubtful = False
        """Whether some answer was lost: then something may happen later than it was asked for."""

    # ------------------------------------------------------------------ what an operator does

    def cancels(self, errands: Iterable[Errand]) -> None:
        """*errands* are about to be cancelled."""
        self._cancels.update(errand.number for errand in errands)

    def cancel_answered(self, errand: Errand, *, is_refused: bool) -> None:
        """The broker has cancelled *errand*, or refused to."""
        if is_refused:
            self._refused_cancels[errand.number] += 1
        else:
            self._cancelled.add(errand.number)
            self._withdrawn[errand.number] = "was cancelled"

    def purges(self) -> tuple[_Purge, list[Errand]]:
        """The queue is about to be purged; returns the purge and what it must drop if it was not handed out before."""
        purge = _Purge(self._now())
        self._purges.append(purge)
        return purge, [errand for errand in self._ledger.acknowledged.values() if errand.queue == PURGED]

    def purge_answered(self, purge: _Purge, there: list[Errand]) -> None:
        """The queue is purged: what was *there*, and never handed out so far, never will be."""
        purge.answered_at = self._now()
        for errand in there:
            if errand.number not in self._handed_out:
                self._withdrawn[errand.number] = "was purged"

    def pauses(self, queue: str) -> None:
        """*queue* is paused, for certain: the broker has said so."""
        if queue not in self._resume_may_come:
            self._paused.add(queue)

    def resumes(self, queue: str) -> None:
        """*queue* is about to be resumed."""
        self._paused.discard(queue)
        self._resume_may_come.add(queue)

    def resume_answered(self, queue: str) -> None:
        """*queue* is resumed."""
        self._resume_may_come.discard(queue)

    def redrives(self, errands: Iterable[Errand]) -> None:
        """*errands* are about to be redriven, if they are dead."""
        self._redriven_at_most.update(errand.number for errand in errands)

    def redrive_answered(self, errands: Iterable[Errand]) -> None:
        """*errands*, which were dead, are redriven."""
        self._redriven.update(errand.number for errand in errands)

    def forgets(self, errands: Iterable[Errand]) -> None:
        """*errands*, which are dead, are about to be forgotten."""
        self._maybe_forgotten.update(errand.number for errand in errands)

    def forget_answered(self, errands: Iterable[Errand]) -> None:
        """*errands* are forgotten."""
        self._forgotten.update(errand.number for errand in errands)

    # ------------------------------------------------------------------ what the broker does

    def handed_out(self, errand: Errand) -> None:
        """Note that *errand* is under a new lease, and raise `WentWrong` if it must not be."""
        self._handed_out.add(errand.number)
        if errand.number in self._withdrawn:
            raise WentWrong(f"{errand}: it {self._withdrawn[errand.number]}, and was handed out again")
        if errand.queue in self._paused:
            raise WentWrong(f"{errand}: it was handed out while its queue was paused")

    # ------------------------------------------------------------------ how it ends

    def is_left_alone(self, errand: Errand) -> bool:
        """Whether nobody interferes with it."""
        number = errand.number
        return not (
            self._may_be_cancelled(errand)
            or self._redriven_at_most[number]
            or number in self._maybe_forgotten
            or self._may_be_purged(errand)
        )

    def check_result(self, errand: Errand, result: TaskResult) -> None:
        """Raise `WentWrong` unless a client may be told *result* now."""
        if result.state is TaskState.CANCELLED:
            if not self._may_be_cancelled(errand) and not self._may_be_purged(errand):
                raise WentWrong(f"{errand}: a client was told that it was cancelled, which nobody asked for")
            return
        if not self._fits(errand, result, range(1, 2 + self._redriven_at_most[errand.number])):
            raise WentWrong(f"{errand}: ended as {result}, which is not how it has to end")

    def check_absent(self, errand: Errand) -> bool:
        """Raise `WentWrong` if the broker must know it; else tell whether it was ever enqueued."""
        number, ledger = errand.number, self._ledger
        if number in ledger.doubtful and not ledger.begun[number]:
            return False
        if self._may_be_purged(errand) or number in self._maybe_forgotten:
            return True
        may_be_over = not errand.is_kept
        if may_be_over and self._may_be_cancelled(errand):
            return True
        if not may_be_over or not errand.succeeds(1 + self._redriven_at_most[number]):
            raise WentWrong(f"{errand}: the broker does not know it")
        if not ledger.returned[number]:
            raise WentWrong(f"{errand}: it is gone, and was never run to its end")
        return True

    def is_unsure(self, errand: Errand) -> bool:
        """Whether *errand*, of which nobody knows, may have been enqueued all the same, and purged."""
        return self._may_be_purged(errand)

    def check_view(self, errand: Errand, view: TaskView) -> None:
        """Raise `WentWrong` unless *view* is how it may have ended."""
        number = errand.number
        if number in self._forgotten:
            raise WentWrong(f"{errand}: it was forgotten, and is there again: {view}")
        if view.state is TaskState.CANCELLED:
            if not self._may_be_cancelled(errand):
                raise WentWrong(f"{errand}: it is cancelled, which nobody asked for")
        elif number in self._cancelled:
            raise WentWrong(f"{errand}: it was cancelled, and is {view.state.value}")
        elif not self._fits(errand, view, [view.generation]):
            raise WentWrong(f"{errand}: ended as {view}, which is not how it has to end")
        fewest, most = 1 + self._redriven[number], 1 + self._redriven_at_most[number]
        if not fewest <= view.generation <= most:
            raise WentWrong(f"{errand}: in generation {view.generation}, should be {fewest} to {most}")
        self._ledger.check(errand, view)

    def check_told(self, errand: Errand, results: list[TaskResult], view: TaskView | None) -> None:
        """Raise `WentWrong` if clients were told different ends of one generation, or another than the broker keeps."""
        ends = {(result.state, result.finished_at, result.result, result.attempts, result.losses) for result in results}
        if len(ends) > 1 + self._redriven_at_most[errand.number]:
            raise WentWrong(f"{errand}: it has ended more than once: {results}")
        if view is None or view.generation > 1:
            return
        kept = (view.state, view.finished_at, view.result, view.attempts, view.losses)
        if ends - {kept}:
            raise WentWrong(f"{errand}: clients were told {results}, the broker keeps {view}")

    def check_kept(self, errand: Errand, view: TaskView | None) -> None:
        """Raise `WentWrong` if the end of *errand* was forgotten before its time.

        The clock of a broker that was restarted after its wall was set may have leapt; this
        is for runs without that.
        """
        returned_at = self._ledger.returned_at.get(errand.number)
        if view is not None or returned_at is None or not errand.ttl_ms or not self.is_left_alone(errand):
            return
        age_s = self._now() - returned_at
        if age_s < errand.ttl_ms / 1_000 / _FASTEST - _STEP_S:
            raise WentWrong(f"{errand}: forgotten {age_s:.3f} s after its end; to be kept {errand.ttl_ms} ms")

    @staticmethod
    def check_over(errand: Errand, view: TaskView | None) -> None:
        """Raise `WentWrong` if the end of *errand* is still kept, long after its time."""
        if view is not None and view.state is not TaskState.DEAD and errand.ttl_ms == SHORT_TTL_MS:
            raise WentWrong(f"{errand}: to be kept {errand.ttl_ms} ms, and still there: {view}")

    # ------------------------------------------------------------------ how

    def _fits(self, errand: Errand, end: TaskResult | TaskView, generations: Iterable[int]) -> bool:
        interrupted = self._ledger.interrupted[errand.number]
        return any(errand.fits(end, generation, interrupted) for generation in generations)

    def _may_be_cancelled(self, errand: Errand) -> bool:
        return self._cancels[errand.number] > self._refused_cancels[errand.number]

    def _may_be_purged(self, errand: Errand) -> bool:
        return errand.queue == PURGED and any(purge.answered_at >= errand.made_at for purge in self._purges)
