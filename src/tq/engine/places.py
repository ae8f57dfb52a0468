"""Places: in which rows a task of each state is, and who moves it from one state to the next.

A task is in the rows of its state and in no other; its id row leads to them.  What a step
deletes and writes follows from that: what only the old state has, and what only the new.
Each function of the engine that takes a task from one state to another registers here as
the mover of its step and says which rows it deletes and writes.

Invariant: the movers are exactly the ways of `tq.core.lifecycle.TRANSITIONS`.  A way that
is not in the table, one that writes other rows than its states have, a second mover of
a way or a way without a mover ends the import of the engine.  Only what is past its
retention goes without a way: an end or a dead letter (`tq.engine.retention`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from tq.core.lifecycle import TRANSITIONS, Step, TaskState
from tq.engine.rows import DEAD, DUE, ENDED, LEASE, READY

F = TypeVar("F", bound=Callable[..., Any])

# An end is kept under the task's id for its result's time, or not at all.
PLACES: dict[TaskState | None, frozenset[bytes]] = {
    None: frozenset(),
    TaskState.READY: frozenset({READY}),
    TaskState.RUNNING: frozenset({READY, LEASE}),
    TaskState.SCHEDULED: frozenset({DUE}),
    TaskState.DEAD: frozenset({DEAD}),
    TaskState.COMPLETED: frozenset({ENDED}),
    TaskState.CANCELLED: frozenset({ENDED}),
}

_Way = tuple[TaskState | None, Step]


class Move(NamedTuple):
    """What a mover says of itself: the way it takes, the rows it deletes and those it writes."""

    source: TaskState | None
    step: Step
    deletes: frozenset[bytes]
    writes: frozenset[bytes]


class Moves:
    """The movers of a table of *transitions*."""

    def __init__(self, transitions: Mapping[_Way, TaskState | None]) -> None:
        self._transitions = transitions
        self.by_way: dict[_Way, Move] = {}

    def add(self, move: Move) -> None:
        """Let *move* be the one mover of its way.

        Raises:
            LookupError: The table has no such way, or it has a mover.
            ValueError: The rows are not those of the two states.
        """
        way = (move.source, move.step)
        name = f"{move.source.value if move.source else 'nothing'}, {move.step.value}"
        if way not in self._transitions:
            raise LookupError(f"the life cycle has no way from {name}")
        if way in self.by_way:
            raise LookupError(f"two movers from {name}")
        old, new = PLACES[move.source], PLACES[self._transitions[way]]
        if (move.deletes, move.writes) != (old - new, new - old):
            raise ValueError(
                f"the mover from {name} deletes {sorted(move.deletes)} and writes {sorted(move.writes)}; "
                f"its states ask for {sorted(old - new)} and {sorted(new - old)}"
            )
        self.by_way[way] = move

    def check(self) -> None:
        """Make sure that every way has its mover.

        Raises:
            LookupError: Some have none; the text names them.
        """
        missing = [f"{source.value if source else 'nothing'}, {step.value}" for source, step in self._transitions
                   if (source, step) not in self.by_way]  # fmt: skip
        if missing:
            raise LookupError(f"nobody moves a task from {'; '.join(missing)}")


MOVES = Moves(TRANSITIONS)


def moves(
    source: TaskState | None, step: Step, *, deletes: tuple[bytes, ...] = (), writes: tuple[bytes, ...] = ()
) -> Callable[[F], F]:
    """Register the decorated function, unchanged, as the mover of *step* from *source*; raises as `Moves.add`."""

    def register(function: F) -> F:
        MOVES.add(Move(source, step, frozenset(deletes), frozenset(writes)))
        return function

    return register
