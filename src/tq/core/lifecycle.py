"""The life of a task: its states, and the only ways from one to the next.

docs/lifecycle.md is drawn from the table, and the engine has one mover for each way of it
and no other (`tq.engine.places`).  Invariant: a terminal state is left for another only by a
redrive, which starts a new generation of the task.
"""

from enum import Enum


class TaskState(Enum):
    """Where a task is."""

    SCHEDULED = "scheduled"
    """Not yet due: it waits for its retry."""
    READY = "ready"
    """In its queue, for the next worker with room."""
    RUNNING = "running"
    """Delivered to a worker under a lease; a started mark tells what really runs."""
    COMPLETED = "completed"
    """The handler returned; the result is kept for the task's ``result_ttl_ms``."""
    DEAD = "dead"
    """In the dead letter, with a reason, until redriven, purged or past retention."""
    CANCELLED = "cancelled"
    """Withdrawn before it was delivered.  Told of what a purge drops, too, though nothing is kept of that."""


class Step(Enum):
    """What happens to a task."""

    ENQUEUE = "enqueue"
    DELIVER = "deliver"
    RELEASE = "release"
    LOSE = "lose"
    COMPLETE = "complete"
    RETRY = "retry"
    DUE = "due"
    BURY = "give up"
    CANCEL = "cancel"
    REDRIVE = "redrive"
    PURGE = "purge"
    FORGET = "forget"


TERMINAL = frozenset({TaskState.COMPLETED, TaskState.DEAD, TaskState.CANCELLED})

# Where None is the target the task is gone.  What ends its retention goes without a step.
TRANSITIONS: dict[tuple[TaskState | None, Step], TaskState | None] = {
    (None, Step.ENQUEUE): TaskState.READY,
    (TaskState.READY, Step.DELIVER): TaskState.RUNNING,
    (TaskState.READY, Step.CANCEL): TaskState.CANCELLED,
    (TaskState.RUNNING, Step.RELEASE): TaskState.READY,
    (TaskState.RUNNING, Step.LOSE): TaskState.READY,
    (TaskState.RUNNING, Step.COMPLETE): TaskState.COMPLETED,
    (TaskState.RUNNING, Step.RETRY): TaskState.SCHEDULED,
    (TaskState.RUNNING, Step.BURY): TaskState.DEAD,
    (TaskState.SCHEDULED, Step.DUE): TaskState.READY,
    (TaskState.SCHEDULED, Step.CANCEL): TaskState.CANCELLED,
    (TaskState.DEAD, Step.REDRIVE): TaskState.READY,
    (TaskState.READY, Step.PURGE): None,
    (TaskState.RUNNING, Step.PURGE): None,
    (TaskState.SCHEDULED, Step.PURGE): None,
    (TaskState.DEAD, Step.FORGET): None,
}


class DeadReason(Enum):
    """Why a task is in the dead letter."""

    ATTEMPTS = "attempts"
    """The handler failed ``max_attempts`` times."""
    REJECTED = "rejected"
    """The handler, or its worker, said that trying again is of no use."""
    LOSSES = "losses"
    """Its worker died or went silent ``max_losses`` times while running it alone."""


def after(state: TaskState | None, step: Step) -> TaskState:
    """Return the state that *step* leads to from *state* (None: the task does not exist yet).

    Raises:
        KeyError: The table has no such way, or no state behind it; asking for one is a bug of the caller.
    """
    target = TRANSITIONS[state, step]
    if target is None:
        raise KeyError((state, step))
    return target


def diagram() -> str:
    """Return the table as a Mermaid state diagram (docs/lifecycle.md holds exactly this)."""
    lines = ["stateDiagram-v2"]
    for (state, step), target in TRANSITIONS.items():
        source, end = (each.value if each else "[*]" for each in (state, target))
        lines.append(f"    {source} --> {end}: {step.value}")
    lines += [f"    {state.value} --> [*]: retention" for state in TaskState if state in TERMINAL]
    return "\n".join(lines)
