"""Dead letters: listing, redriving and purging them."""

from typing import Annotated

from cyclopts import App, Parameter

from tq.admin.answer import Answer, Cell, Listing, at, counted, document, in_line
from tq.admin.commands.tasks import LIMIT_DEFAULT, Id, Limit, OfQueue, attempts, some, take
from tq.admin.operator import Declined, Operated
from tq.client import DeadAction
from tq.core.errors import ConfigError
from tq.core.ids import TaskId, format_id

dead = App(name="dead", help="List, redrive or purge dead letters.")

OfWholeQueue = Annotated[str | None, Parameter(help="All dead letters of this queue, instead of ids.")]

_FAILURE_CHARACTERS_MAX = 80


@dead.command(name="list")
def list_dead(*, queue: OfQueue = None, limit: Limit = LIMIT_DEFAULT, operator: Operated) -> Answer:
    """List dead letters, the oldest first, each with its reason and its last failure."""
    found = take(operator, "dead", queue, limit)
    header = ("ID", "NAME", "QUEUE", "REASON", "ATTEMPTS", "LOSSES", "DIED", "LAST FAILURE")
    rows: list[tuple[Cell, ...]] = [
        (
            format_id(view.id),
            view.name,
            view.queue,
            view.reason,
            attempts(view),
            view.losses,
            at(view.finished_at),
            in_line(f"{view.failure.type}: {view.failure.message}", _FAILURE_CHARACTERS_MAX) if view.failure else None,
        )
        for view in found
    ]
    return Answer(document(found), [Listing(header, rows, "There are no dead letters.")])


@dead.command
def redrive(*task_ids: Id, queue: OfWholeQueue = None, operator: Operated) -> Answer:
    """Put dead letters back into their queues, as new generations with all their attempts."""
    named = _which(task_ids, queue)
    count = operator.client.control_dead(DeadAction.REDRIVE, queue, named)
    return _done(DeadAction.REDRIVE, count, f"Redrove {counted(count, 'task')}.")


@dead.command
def purge(
    *task_ids: Id,
    queue: OfWholeQueue = None,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    operator: Operated,
) -> Answer:
    """Forget dead letters for good."""
    named = _which(task_ids, queue)
    if not yes:
        count = operator.queue(queue).dead if queue is not None else len(task_ids)
        of_queue = "" if queue is None else f" of queue {queue}"
        if not operator.confirm(f"Forget {counted(count, 'dead letter')}{of_queue} for good?"):
            raise Declined("no dead letter was purged")
    purged = operator.client.control_dead(DeadAction.PURGE, queue, named)
    return _done(DeadAction.PURGE, purged, f"Purged {counted(purged, 'dead letter')}.")


def _which(task_ids: tuple[TaskId, ...], queue: str | None) -> list[TaskId] | None:
    """Return the ids to act on; None for all of *queue*.

    Raises:
        ConfigError: Both are given, or neither.
    """
    if queue is None:
        if not task_ids:
            raise ConfigError("name at least one task by its id, or all dead letters of a queue by --queue")
        return some(task_ids)
    if task_ids:
        raise ConfigError("name either task ids or --queue, not both")
    return None


def _done(action: DeadAction, tasks: int, text: str) -> Answer:
    return Answer({"action": action.value, "tasks": tasks}, [text])
