"""The run: the same files by tasks and in sequence, and everything that must hold of it.

    a broker, a worker     ->  paused, filled, resumed  ->  results as they come
    -> dead letters looked up -> worker and broker stopped -> in sequence -> compared

The queue is paused while it is filled, so that what is timed is the work alone, and so
that the order of the hand-out can be checked: else the worker would have taken its first
files before the urgent ones are there.

Invariant: a `Run` is returned only when both programs have stopped with exit code 0.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from examples.stdlib_index.sources import BROKEN, Sources
from examples.stdlib_index.tasks import QUEUE, RETRY, FileIndex, app, index_file
from examples.stdlib_index.totals import Outcomes, differences, overtaken
from tq import Handle, TaskDead, TaskState
from tq.client import QueueAction
from tq.core.outcome import TaskFailure
from tq.testing.programs import Program, ProgramError, broker_url, start_broker, start_worker

T = TypeVar("T")

WORKER_S_MAX = 30.0
RESULTS_S_MAX = 600.0
_POLL_S = 0.05


class Track(Protocol):
    """Passes items through, and shows how many of *count* have come, under a title."""

    def __call__(self, items: Iterable[T], count: int, title: str) -> Iterator[T]: ...


class DeadLetter(NamedTuple):
    """A task that was given up, as the broker tells of it."""

    handle: Handle[FileIndex]
    path: str
    attempts: int
    failure: TaskFailure


class Timed(NamedTuple):
    """Outcomes, and how long it took to get them."""

    outcomes: Outcomes
    seconds: float


class Run(NamedTuple):
    """What the program has done."""

    queued: Timed
    sequential: Timed
    enqueue_seconds: float
    dead: list[DeadLetter]
    differences: list[str]


def run(sources: Sources, workers: int, directory: Path, track: Track) -> Run:
    """Index *sources* by *workers* processes, then in sequence; data and logs are in *directory*.

    Raises:
        ProgramError: The broker or the worker did not start, or did not stop in good order.
        TaskQueueError: The broker refused something, or did not answer.
    """
    worker_words = ("-A", "examples.stdlib_index:app", "-P", "process", "-c", str(workers))
    with start_broker("--data", str(directory / "data"), log=directory / "broker.log") as broker:
        # As in any program: the app's connections go where this variable says, at first use.
        os.environ["TQ_URL"] = broker_url(broker)
        with start_worker(*worker_words, log=directory / "worker.log") as worker, app:
            _wait_for(worker)
            queued, enqueue_seconds, dead = _by_tasks(sources, track)
            worker.stop()
        broker.stop()
    sequential = _in_sequence(sources, track)
    found = differences(queued.outcomes, sequential.outcomes)
    found += _unexpected_order(queued.outcomes, sources, workers)
    found += _unexpected_dead(queued.outcomes, dead)
    return Run(queued, sequential, enqueue_seconds, dead, found)


def _wait_for(worker: Program) -> None:
    """Wait until the queue, which there is none of yet, is served."""
    deadline = time.monotonic() + WORKER_S_MAX
    while not any(view.name == QUEUE and view.workers for view in app.client.queues()):
        worker.check()
        if time.monotonic() > deadline:
            raise ProgramError(f"nobody serves the queue {QUEUE} after {WORKER_S_MAX:g} s")
        time.sleep(_POLL_S)


def _by_tasks(sources: Sources, track: Track) -> tuple[Timed, float, list[DeadLetter]]:
    app.client.control_queue(QUEUE, QueueAction.PAUSE)
    began = time.monotonic()
    # The urgent ones come last, and are to be handed out first.
    handles = index_file.enqueue_many((path,) for path in sources.others)
    handles += index_file.using(priority="high").enqueue_many((path,) for path in sources.urgent)
    enqueue_seconds = time.monotonic() - began
    paths = dict(zip(handles, sources.paths, strict=True))

    outcomes = Outcomes({}, {})
    app.client.control_queue(QUEUE, QueueAction.RESUME)
    began = time.monotonic()
    for handle in track(app.results(handles, timeout=RESULTS_S_MAX), len(handles), "by tasks"):
        try:
            outcomes.indexed[paths[handle]] = handle.result()
        except TaskDead as death:
            failure = death.outcome.failure
            outcomes.failed[paths[handle]] = failure.type if failure else "unknown"
    seconds = time.monotonic() - began

    return Timed(outcomes, seconds), enqueue_seconds, _dead_letters(paths)


def _dead_letters(paths: Mapping[Handle[FileIndex], str]) -> list[DeadLetter]:
    """Ask the broker for what is in the dead letter of the queue."""
    found = []
    for view in app.client.list_tasks(TaskState.DEAD, QUEUE):
        handle = index_file.handle(view.id.hex())
        assert view.failure is not None, "no task is dead without a failure"
        found.append(DeadLetter(handle, paths[handle], view.attempts, view.failure))
    return sorted(found, key=lambda letter: letter.path)


def _in_sequence(sources: Sources, track: Track) -> Timed:
    outcomes = Outcomes({}, {})
    began = time.monotonic()
    for path in track(sources.paths, len(sources.paths), "in sequence"):
        try:
            outcomes.indexed[path] = index_file(path)
        except (SyntaxError, OSError, ValueError) as error:
            outcomes.failed[path] = type(error).__qualname__
    return Timed(outcomes, time.monotonic() - began)


def _unexpected_order(outcomes: Outcomes, sources: Sources, workers: int) -> list[str]:
    ahead = overtaken(outcomes, sources)
    if ahead < workers:
        return []
    return [f"{ahead} other files were started before the last urgent one; {workers - 1} may be"]


def _unexpected_dead(outcomes: Outcomes, dead: list[DeadLetter]) -> list[str]:
    found = []
    if (count := len(dead)) != len(outcomes.failed):
        found.append(f"{count} dead letters, but {len(outcomes.failed)} tasks ended there")
    if str(BROKEN) not in outcomes.failed:
        found.append(f"{BROKEN.name} parses, which it must not")
    for letter in dead:
        if letter.attempts != RETRY.max_attempts:
            found.append(f"{letter.path}: given up after {letter.attempts} attempts, not {RETRY.max_attempts}")
        if not letter.failure.traceback:
            found.append(f"{letter.path}: its dead letter has no traceback")
    return found
