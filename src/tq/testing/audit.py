"""The audit at the end of a run: what the broker tells, compared with what really happened.

Invariant: it asks only what any client may ask, and changes nothing.
"""

from collections.abc import Iterable

from tq.client.async_client import AsyncClient
from tq.core.outcome import TaskResult
from tq.core.task import TaskView
from tq.testing.fates import Fates
from tq.testing.workload import Errand, Kind, Ledger, WentWrong


class Audit:
    """Asks by *client*.  *is_calm*: no worker had an accident; *is_steady*: the broker's wall was not set."""

    def __init__(self, client: AsyncClient, ledger: Ledger, fates: Fates, *, is_calm: bool, is_steady: bool) -> None:
        self._client = client
        self._ledger = ledger
        self._fates = fates
        self._is_calm = is_calm
        self._is_steady = is_steady

    async def is_drained(self) -> bool:
        """Whether nothing waits, runs or is being removed."""
        queues = await self._client.queues()
        return not any(view.ready + view.running + view.scheduled or view.purging for view in queues)

    async def check(self, told: Iterable[tuple[Errand, TaskResult]]) -> list[TaskView | None]:
        """Compare it with all that happened, and with what clients were *told*; return what is to last."""
        ledger, fates = self._ledger, self._fates
        errands = [*ledger.acknowledged.values(), *ledger.doubtful.values()]
        views = await self._client.get([errand.id for errand in errands])
        ends: dict[int, list[TaskResult]] = {}
        for errand, result in told:
            ends.setdefault(errand.number, []).append(result)
        known: list[tuple[Errand, TaskView | None]] = []
        absent: list[Errand] = []
        for errand, view in zip(errands, views, strict=True):
            if view is not None:
                fates.check_view(errand, view)
            if view is not None or fates.check_absent(errand):
                known.append((errand, view))
            else:
                absent.append(errand)
            if self._is_steady:
                fates.check_kept(errand, view)
            fates.check_told(errand, ends.get(errand.number, []), view)
        await self._check_totals(known, absent)
        if self._is_calm:
            self._check_calm((await self._client.stats()).lost_total, [errand for errand, _ in known])
        return [view for errand, view in zip(errands, views, strict=True) if errand.is_kept]

    async def check_over(self) -> None:
        """Check that what was to be kept for a short time is gone."""
        errands = list(self._ledger.acknowledged.values())
        for errand, view in zip(errands, await self._client.get([errand.id for errand in errands]), strict=True):
            self._fates.check_over(errand, view)

    async def _check_totals(self, known: list[tuple[Errand, TaskView | None]], absent: list[Errand]) -> None:
        """Check that what has gone into each queue has come out of it, and as what."""
        for queue in await self._client.queues():
            ended = queue.completed_total + queue.cancelled_total + queue.purged_total + queue.dead
            here = [errand for errand, _ in known if errand.queue == queue.name]
            unsure = sum(errand.queue == queue.name and self._fates.is_unsure(errand) for errand in absent)
            if queue.enqueued_total != ended or not len(here) <= ended <= len(here) + unsure:
                raise WentWrong(
                    f"queue {queue.name}: {queue.enqueued_total} were enqueued and {ended} have ended by its counters, "
                    f"there were {len(here)}, and {unsure} perhaps: {queue}"
                )
            alone = [errand for errand in here if self._fates.is_left_alone(errand)]
            others = [errand for errand in here if not self._fates.is_left_alone(errand)]
            low = _sums(alone, {errand.number: errand.times for errand in alone})
            failures = {e.number: self._ledger.failed[e.number] + self._ledger.interrupted[e.number] for e in here}
            high = _sums(alone, {e.number: e.times + self._ledger.interrupted[e.number] for e in alone})
            high = (high[0] + len(others), high[1] + sum(failures[e.number] for e in others), high[2] + len(others))
            counted = (queue.completed_total, queue.failed_total, queue.dead)
            if not all(least <= found <= most for least, found, most in zip(low, counted, high, strict=True)):
                raise WentWrong(
                    f"queue {queue.name}: counts {counted} completed, failed, dead; should be {low} to {high}"
                )

    def _check_calm(self, lost: int, known: list[Errand]) -> None:
        """No lease was lost, and nothing was begun in vain, where no worker had an accident."""
        if any(errand.kind is Kind.POISON for errand in known):
            return
        if lost:
            raise WentWrong(f"{lost} leases were lost, and no worker has died or was out of reach")
        for errand in known:
            begun, tries = self._ledger.begun[errand.number], errand.times + errand.succeeds()
            if self._fates.is_left_alone(errand) and begun != tries:
                raise WentWrong(f"{errand}: begun {begun} times without an accident, should be {tries} times")


def _sums(errands: list[Errand], failures: dict[int, int]) -> tuple[int, int, int]:
    succeeding = sum(errand.succeeds() for errand in errands)
    return succeeding, sum(failures.values()), len(errands) - succeeding
