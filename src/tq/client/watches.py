"""Who waits for which tasks, without I/O: results are pushed once, and shared out here.

Invariant: a `Watch` is told of each of its tasks once: as a result, as unknown, or, with
all that are still missing, by one error.
"""

import copy
from collections.abc import Callable, Iterable

from tq.core.outcome import TaskResult


def _nobody() -> None:
    """Nobody sleeps on the watch."""


class Watch:
    """Some tasks that one caller waits for; ``wake`` is called whenever there is news."""

    def __init__(self, ids: Iterable[bytes]) -> None:
        # Ordered, so that the same run asks in the same order.
        self.missing = dict.fromkeys(ids)
        self.ended: list[TaskResult] = []
        self.unknown: list[bytes] = []
        self.error: Exception | None = None
        self.wake: Callable[[], object] = _nobody

    @property
    def has_news(self) -> bool:
        """Whether there is something to take, or nothing more to wait for."""
        return bool(self.ended or self.error) or not self.missing

    def take(self) -> list[TaskResult]:
        """Return the results that have come since the last call.

        Raises:
            Exception: What the missing ones failed with, once all results are taken.
        """
        if not self.ended and self.error is not None:
            raise self.error
        ended, self.ended = self.ended, []
        return ended


class Watches:
    """All watches of one connection."""

    def __init__(self) -> None:
        self._watching: dict[bytes, list[Watch]] = {}

    def __len__(self) -> int:
        return len(self._watching)

    def add(self, watch: Watch) -> list[bytes]:
        """Take *watch* in; return those of its tasks that the broker has yet to be asked for."""
        fresh = []
        for task_id in watch.missing:
            others = self._watching.setdefault(task_id, [])
            if not others:
                fresh.append(task_id)
            others.append(watch)
        return fresh

    def remove(self, watch: Watch) -> list[bytes]:
        """Forget *watch*; return those of its tasks that nobody waits for any more."""
        idle = []
        for task_id in watch.missing:
            others = self._watching.get(task_id)
            if others is None or watch not in others:
                continue
            others.remove(watch)
            if not others:
                del self._watching[task_id]
                idle.append(task_id)
        return idle

    def ended(self, results: Iterable[TaskResult]) -> None:
        """Share out the results that the broker sent; those nobody waits for any more are dropped."""
        for result in results:
            for watch in self._watching.pop(result.id, ()):
                watch.missing.pop(result.id, None)
                watch.ended.append(result)
                watch.wake()

    def unknown(self, ids: Iterable[bytes]) -> None:
        """Tell the watches of tasks that the broker does not know."""
        for task_id in ids:
            for watch in self._watching.pop(task_id, ()):
                watch.missing.pop(task_id, None)
                watch.unknown.append(task_id)
                watch.wake()

    def failed(self, ids: Iterable[bytes], error: Exception) -> None:
        """End the watches that wait for any of *ids*, each with a copy of *error*."""
        for task_id in ids:
            for watch in self._watching.pop(task_id, ()):
                if watch.error is None:
                    watch.error = copy.copy(error)
                    watch.wake()

    def all_failed(self, error: Exception) -> None:
        """End all watches, each with a copy of *error*."""
        self.failed(list(self._watching), error)
