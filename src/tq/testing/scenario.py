"""Scenarios: everything that is planned for a run, event by event, as a seed draws it.

    Scenario.draw(7)                 the hosts, and what they do and suffer, each at its instant
    scenario.only([3, 8, 21])        of this only the events of these numbers

Invariant: an event does the same whatever else is planned: its instant is fixed, and what
it leaves to chance is drawn by its number.  So a scenario can be cut down to what matters.
"""

import random
from collections.abc import Callable, Collection, Sequence
from enum import Enum

import msgspec

TROUBLED_S = 15.0
"""Within this time all events begin; then everything is healed."""
FRAME_TASKS_MAX = 12
_FAULTS_MAX = 8
_STEPS = (4, 10)
_ACTS_MAX = 8
_WORKERS = ("worker-1", "worker-2", "worker-3")
_CLIENTS = ("client-1", "client-2", "client-3")
OPERATOR = "operator"
FATE = "fate"


class Fault(Enum):
    """What may befall the world."""

    CRASH_AT_COMMIT = "broker crash at a commit"
    CRASH = "broker crash"
    STOP = "broker stop"
    FAILED_SYNC = "failed sync"
    STALL = "disk stall"
    PAUSE = "broker suspended"
    WALL = "wall clock jump"
    CLIENT_WALL = "wall clock jump of a client"
    DROP = "connections dropped"
    PART = "partition"
    WORKER = "worker crash"
    CHILD = "child process killed"


HARMLESS = frozenset({Fault.STALL, Fault.PAUSE, Fault.WALL, Fault.CLIENT_WALL})
"""A worker that lives loses nothing by these: time that the broker did not hear is not held against it."""


class Step(Enum):
    """What a client does."""

    FRAME = "enqueue a frame"
    SINGLES = "enqueue tasks one by one"
    WAIT = "wait for results"
    CRASH = "crash while enqueuing"


class Act(Enum):
    """What an operator does."""

    CANCEL = "cancel"
    PURGE = "purge"
    PAUSE = "pause"
    RESUME = "resume"
    REDRIVE = "redrive"
    FORGET = "forget dead letters"


_STEP_WEIGHTS = {Step.FRAME: 3, Step.SINGLES: 3, Step.WAIT: 3, Step.CRASH: 1}
_ACT_WEIGHTS = {Act.CANCEL: 4, Act.PURGE: 2, Act.PAUSE: 2, Act.RESUME: 1, Act.REDRIVE: 3, Act.FORGET: 1}


class Event(msgspec.Struct, frozen=True):
    """Something that host *who* does, or that fate does to some, *at_s* seconds after the start."""

    number: int
    at_s: float
    who: str
    what: Fault | Step | Act

    def __str__(self) -> str:
        return f"{self.number:3} at {self.at_s:6.3f} s  {self.who}: {self.what.value}"


class Scenario(msgspec.Struct, frozen=True):
    """A run as planned."""

    seed: int
    workers: int
    events: tuple[Event, ...]
    frame_tasks_max: int = FRAME_TASKS_MAX

    @classmethod
    def draw(cls, seed: int, faults: Sequence[Fault] | None = None, acts: Sequence[Act] | None = None) -> "Scenario":
        """Return the scenario of *seed*, with *faults* and an operator's *acts* (None: those that it draws)."""
        chance = random.Random(f"{seed} scenario")  # noqa: S311 - a simulation, no secret
        if faults is None:
            faults = chance.choices(list(Fault), k=chance.randint(0, _FAULTS_MAX))
        planned: list[tuple[float, str, Fault | Step | Act]] = [
            (chance.uniform(0, TROUBLED_S), FATE, fault) for fault in faults
        ]
        for client in _CLIENTS[: chance.randint(2, 3)]:
            steps = chance.choices(list(_STEP_WEIGHTS), list(_STEP_WEIGHTS.values()), k=chance.randint(*_STEPS))
            planned += [(chance.uniform(0, TROUBLED_S), client, step) for step in steps]
        # Half of the runs have no operator, so that what is checked of errands left alone is checked of all.
        if acts is None and chance.random() < 0.5:
            acts = chance.choices(list(_ACT_WEIGHTS), list(_ACT_WEIGHTS.values()), k=chance.randint(1, _ACTS_MAX))
        planned += [(chance.uniform(0, TROUBLED_S), OPERATOR, act) for act in acts or ()]
        planned.sort(key=lambda event: event[:2])
        events = tuple(Event(number, *event) for number, event in enumerate(planned))
        return cls(seed, chance.randint(2, len(_WORKERS)), events)

    def only(self, numbers: Collection[int]) -> "Scenario":
        """Return it with the events of *numbers* alone."""
        return msgspec.structs.replace(self, events=tuple(e for e in self.events if e.number in numbers))

    def chance(self, purpose: object) -> random.Random:
        """Return the chance of one purpose, so that a change in one part shifts nothing in the others."""
        return random.Random(f"{self.seed} {purpose}")  # noqa: S311 - a simulation, no secret

    def numbered(self, number: int) -> random.Random:
        """Return the chance of the event of *number*."""
        return self.chance(f"event {number}")

    @property
    def worker_names(self) -> tuple[str, ...]:
        """The workers."""
        return _WORKERS[: self.workers]

    @property
    def client_names(self) -> tuple[str, ...]:
        """The clients that do anything."""
        return tuple(name for name in _CLIENTS if self.of(name))

    @property
    def faults(self) -> frozenset[Fault]:
        """The kinds of faults that strike."""
        return frozenset(event.what for event in self.events if isinstance(event.what, Fault))

    def of(self, who: str) -> tuple[Event, ...]:
        """Return the events of one host, or of fate, by their time."""
        return tuple(event for event in self.events if event.who == who)


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a smallest scenario, of those tried, that still *fails* as *scenario* does.

    Halves of the events are left out, then quarters, down to each alone, until none can be
    spared (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002);
    then workers and the tasks of a frame.  It follows from its arguments.
    """
    smallest = _without_events(scenario, fails)
    for workers in range(1, smallest.workers):
        candidate = msgspec.structs.replace(smallest, workers=workers)
        if fails(candidate):
            smallest = candidate
            break
    for tasks in (1, 2, 4):
        candidate = msgspec.structs.replace(smallest, frame_tasks_max=tasks)
        if fails(candidate):
            smallest = candidate
            break
    # What the others made necessary may be to spare now.
    return _without_events(smallest, fails)


def _without_events(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    kept = [event.number for event in scenario.events]
    size = max(1, len(kept) // 2)
    while kept:
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if fails(scenario.only(rest)):
                kept = rest
                break
        else:
            if size == 1:
                break
            size //= 2
            continue
        size = max(1, min(size, len(kept) // 2))
    return scenario.only(kept)
