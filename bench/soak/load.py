"""The load of a soak: chunks of tasks, each task followed until it has ended as it must.

Invariant: a task is looked at until it is in a terminal state, which must be its own and must not
change until its chunk is done; what is dead is forgotten by the broker afterwards, so that nothing heaps up.
"""

import threading
import time
from collections import deque
from statistics import median
from typing import NamedTuple

from bench.soak.handlers import RESULT_S, Declared, end_of
from tq import App, TaskQueueError
from tq.client import DeadAction
from tq.core.errors import TransportError
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import TERMINAL, TaskState

_CHUNK = 500
_CHUNKS_UNDER_WAY = 10
_POLL_S = 0.05
# A worker that is killed gives its tasks back when its lease ends; a task waits for its second attempt.
_CHUNK_S_MAX = 120.0
_PROBE_EVERY_S = 0.1

PROBE_S_MAX = 30.0
"""A probe that takes longer has failed."""


class Broken(Exception):
    """A promise is broken: a task is lost, has ended otherwise than it must, or twice."""


class _Chunk:
    def __init__(self, tasks: dict[TaskId, int]) -> None:
        self.open = tasks
        self.ended: dict[TaskId, TaskState] = {}
        self.began = self.looked_at = time.monotonic()


def may_be_forgotten(number: int, unseen_s: float) -> bool:
    """Tell whether a task that nobody has looked at for so long may have ended as it must, and be forgotten.

    That can be where the disk holds up the looks; what is dead is kept.
    """
    return end_of(number) is TaskState.COMPLETED and unseen_s >= RESULT_S


class Load:
    """Enqueues *total* tasks by *app*, a bounded number under way, and audits each; ``ended`` are those found well.

    What is not repeated when a connection is cut goes by *operator*, whose connection is not.
    """

    def __init__(self, app: App, tasks: Declared, operator: App, total: int) -> None:
        self.ended = 0
        self._app = app
        self._operator = operator
        self._work = tasks.work
        self._total = total

    def run(self, stop: threading.Event) -> None:
        """Go on until all have ended, or *stop*.

        Raises:
            Broken: See there.
        """
        under_way: deque[_Chunk] = deque()
        begun = 0
        while (begun < self._total or under_way) and not stop.is_set():
            while begun < self._total and len(under_way) < _CHUNKS_UNDER_WAY:
                numbers = range(begun, min(begun + _CHUNK, self._total))
                handles = self._work.enqueue_many([(number,) for number in numbers])
                under_way.append(_Chunk(dict(zip([each.task_id for each in handles], numbers, strict=True))))
                begun = numbers.stop
            for chunk in under_way:
                self._look(chunk)
            while under_way and not under_way[0].open:
                self._close(under_way.popleft())
            time.sleep(_POLL_S)

    def _look(self, chunk: _Chunk) -> None:
        """Note which of the open tasks have ended."""
        ids = list(chunk.open)
        before, chunk.looked_at = chunk.looked_at, time.monotonic()
        views = self._app.client.get(ids)
        unseen_s = time.monotonic() - before
        for task_id, view in zip(ids, views, strict=True):
            number = chunk.open[task_id]
            if view is None:
                if not may_be_forgotten(number, unseen_s):
                    raise Broken(f"task {format_id(task_id)} was acknowledged, and the broker does not know it")
                # The broker's totals tell in the end whether it was done.
                state = TaskState.COMPLETED
            elif view.state in TERMINAL:
                state = view.state
                if state is not end_of(number):
                    raise Broken(f"task {format_id(task_id)} of number {number} ended as {view}")
            else:
                continue
            del chunk.open[task_id]
            chunk.ended[task_id] = state
        if chunk.open and time.monotonic() - chunk.began > _CHUNK_S_MAX:
            left = [format_id(task_id) for task_id in list(chunk.open)[:3]]
            raise Broken(f"{len(chunk.open)} tasks have not ended within {_CHUNK_S_MAX:g} s: {', '.join(left)}, ...")

    def _close(self, chunk: _Chunk) -> None:
        """Look once more, and let the broker forget what is dead."""
        ids = list(chunk.ended)
        for task_id, view in zip(ids, self._app.client.get(ids), strict=True):
            # What is completed may have been forgotten by now, its time is short.
            if view is not None and view.state is not chunk.ended[task_id]:
                raise Broken(f"task {format_id(task_id)} had ended as {chunk.ended[task_id]}, and is {view.state} now")
        dead = [task_id for task_id, state in chunk.ended.items() if state is TaskState.DEAD]
        if dead:
            self._purge(dead)
        self.ended += len(chunk.ended)

    def _purge(self, dead: list[TaskId]) -> None:
        """Let the broker forget *dead*; ask again where it was killed before it answered, as that does no harm."""
        until = time.monotonic() + _CHUNK_S_MAX
        while True:
            try:
                self._operator.client.control_dead(DeadAction.PURGE, task_ids=dead)
            except TransportError:
                if time.monotonic() > until:
                    raise
                time.sleep(_POLL_S)
            else:
                return


class Probed(NamedTuple):
    """The probes of a time: the median of what those took that came back, if any did, and how many failed."""

    median_ms: float | None
    failed: int


class Probes:
    """Enqueues a task at a time, in a thread of its own, and times its result.

    A probe that has not come back within *patience_s* has failed.
    """

    def __init__(self, tasks: Declared, patience_s: float = PROBE_S_MAX) -> None:
        self._probe = tasks.probe
        self._patience_s = patience_s
        self._times: list[float] = []
        self._failed = 0
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Go on until *stop*."""
        while not stop.wait(_PROBE_EVERY_S):
            self.send()

    def send(self) -> None:
        """Send one probe, and wait for it."""
        began = time.monotonic()
        try:
            self._probe.enqueue().result(timeout=self._patience_s)
        except TaskQueueError:
            with self._lock:
                self._failed += 1
            return
        with self._lock:
            self._times.append((time.monotonic() - began) * 1_000)

    def take(self) -> Probed:
        """Return the probes since the last call."""
        with self._lock:
            probed = Probed(median(self._times) if self._times else None, self._failed)
            self._times, self._failed = [], 0
        return probed
