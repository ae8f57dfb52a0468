"""Overview: what the queue tells about its queues, its workers and itself as a whole.

Invariant: an answer fits a frame, however many queues and workers there are and whatever
a worker says of itself; a page builds no more views than are on it.
"""

from heapq import nsmallest
from itertools import islice

import msgspec

from tq.core.errors import BatchTooLarge, InvalidArgument
from tq.core.ids import ID_BYTES
from tq.core.limits import LABEL_CHARACTERS_MAX, LABELS_MAX, NAME_LENGTH_MAX, PAGE_MAX, STUCK_MAX
from tq.core.queue import QueueView
from tq.core.times import Timestamp
from tq.core.worker import WorkerView
from tq.engine.changes import Changes
from tq.engine.commands import Totals
from tq.engine.dispatch import Lanes
from tq.engine.leases import Leases
from tq.engine.operations import Operations
from tq.engine.pages import Room, check_limit, numbers_in
from tq.engine.queues import Queue, Queues
from tq.engine.workers import Workers, WorkerSession

# What a view takes besides the names in it: those of its fields, and numbers.
_VIEW_BYTES = 500
# A worker may know so many tasks, and serve so many queues, that their names alone would fill a frame: of each list
# what fits into this is told.
_NAMES_BYTES_MAX = 256 * 1_024
# The head of a text in MessagePack.
_HEAD_BYTES = 5


class Overview:
    """Answers `ListQueues`, `ListWorkers` and `GetTotals`."""

    def __init__(self, queues: Queues, leases: Leases, workers: Workers, lanes: Lanes, operations: Operations) -> None:
        self._queues = queues
        self._leases = leases
        self._workers = workers
        self._lanes = lanes
        self._operations = operations

    def totals(self) -> Totals:
        """Return the sums over all queues."""
        totals = Totals(queues=len(self._queues))
        for queue in self._queues.all():
            row = queue.row
            totals.ready += queue.ready
            totals.running += queue.running_count
            totals.scheduled += row.scheduled
            totals.dead += row.dead
            totals.enqueued_total += row.enqueued_total
            totals.completed_total += row.completed_total
            totals.failed_total += row.failed_total
            totals.lost_total += row.lost_total
        return totals

    def queue(self, name: str, changes: Changes) -> QueueView:
        """Return one queue in detail: with the names that wait and are not served, as many as fit.

        Raises:
            QueueNotFound: There is no queue of that name.
        """
        queue = self._queues.named(name)
        served = self._lanes.names_served(queue)
        waiting: set[str] = set()
        for flow in queue.flows.values():
            if flow.name not in served and flow.name not in waiting and flow.waits(changes):
                waiting.add(flow.name)
        return self._view_of_queue(queue, _as_many_as_fit(sorted(waiting)))

    def queues(self, limit: int | None, cursor: bytes | None) -> tuple[list[QueueView], bytes | None]:
        """Return up to *limit* queues in the order in which they came to be, and the cursor of the next page.

        None, what peers say that know no pages, is for all of them, in one answer.

        Raises:
            BatchTooLarge: All of them do not fit one answer.
            InvalidArgument: Limit or cursor are wrong.
        """
        check_limit(limit)
        # Queues are numbered from 1 on, and none is ever removed.
        (number,) = numbers_in(cursor, (4,)) if cursor else (0,)
        last = len(self._queues)
        views: list[QueueView] = []
        room = Room()
        while number < last:
            queue = self._queues.numbered(number + 1)
            if len(views) == limit or not room.take(_VIEW_BYTES + len(queue.row.name)):
                _check_paged(limit, len(views), last, "queues")
                return views, number.to_bytes(4, "big")
            views.append(self._view_of_queue(queue, None))
            number += 1
        return views, None

    def workers(self, limit: int | None, cursor: bytes | None) -> tuple[list[WorkerView], bytes | None]:
        """Return up to *limit* live workers, and the cursor of the next page; for None all, as for `queues`.

        Their order is that of their sessions, which are random: no other stays the same while they come and go.

        Raises:
            BatchTooLarge: All of them do not fit one answer.
            InvalidArgument: Limit or cursor are wrong.
        """
        check_limit(limit)
        after = cursor or b""
        if after and len(after) != ID_BYTES:
            raise InvalidArgument(f"not a cursor of this list: {after.hex()[:80]}")
        rest = [worker for worker in self._workers.all() if worker.session > after]
        page = nsmallest(PAGE_MAX if limit is None else limit, rest, key=lambda worker: worker.session)
        if limit is None and len(rest) > len(page):
            page = rest
        views: list[WorkerView] = []
        room = Room()
        for worker in page:
            view, size = _view_of_worker(worker, self._leases.started_by(worker.session))
            if not room.take(size):
                _check_paged(limit, len(views), len(rest), "workers")
                return views, views[-1].session
            views.append(view)
        return views, views[-1].session if len(views) < len(rest) else None

    def _view_of_queue(self, queue: Queue, unserved: list[str] | None) -> QueueView:
        row = queue.row
        return QueueView(
            name=row.name,
            paused=row.paused,
            ready=queue.ready,
            running=queue.running_count,
            scheduled=row.scheduled,
            dead=row.dead,
            workers=self._lanes.workers_of(queue),
            enqueued_total=row.enqueued_total,
            completed_total=row.completed_total,
            failed_total=row.failed_total,
            lost_total=row.lost_total,
            dead_total=row.dead_total,
            cancelled_total=row.cancelled_total,
            purged_total=row.purged_total,
            purging=self._operations.purging(queue),
            names_unserved=unserved,
        )


def _view_of_worker(worker: WorkerSession, started: int) -> tuple[WorkerView, int]:
    """Return a view of *worker*, its texts cut to what a task name may have, and at most how many bytes it takes."""
    info = worker.info
    tasks, queues = _as_many_as_fit(info.tasks), _as_many_as_fit(worker.queues)
    texts = [text[:NAME_LENGTH_MAX] for text in (info.name, info.host, info.pool, info.version)]
    name, host, pool, version = texts
    labels = {
        key[:LABEL_CHARACTERS_MAX]: value[:LABEL_CHARACTERS_MAX]
        for key, value in islice(info.labels.items(), LABELS_MAX)
    }
    blocked_by = None if worker.blocked_by is None else worker.blocked_by[:NAME_LENGTH_MAX]
    stuck = [task[:NAME_LENGTH_MAX] for task in worker.stuck[:STUCK_MAX]]
    view = WorkerView(
        session=worker.session,
        info=msgspec.structs.replace(
            info, name=name, host=host, pool=pool, version=version, tasks=tasks, labels=labels
        ),
        queues=queues,
        connected=worker.connected,
        registered_at=Timestamp(worker.registered_at),
        seen_at=Timestamp(worker.seen_at),
        held=worker.held_tasks,
        started=started,
        isolating=worker.isolating,
        blocked_by=blocked_by,
        stuck=stuck,
    )
    shown = (*texts, blocked_by or "", *stuck, *tasks, *queues, *labels, *labels.values())
    return view, _VIEW_BYTES + sum(map(_text_bytes, shown))


def _as_many_as_fit(names: list[str]) -> list[str]:
    room = _NAMES_BYTES_MAX
    for count, name in enumerate(names):
        room -= _text_bytes(name)
        if room < 0:
            return names[:count]
    return names


def _text_bytes(text: str) -> int:
    return _HEAD_BYTES + (len(text) if text.isascii() else len(text.encode()))


def _check_paged(limit: int | None, told: int, there: int, what: str) -> None:
    if limit is None:
        raise BatchTooLarge(f"{told} of {there} {what} fit one answer: ask for them in pages, by limit and cursor")
