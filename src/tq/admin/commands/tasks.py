"""Tasks: listing them, and showing, cancelling and retrying single ones."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from cyclopts import App, Parameter, Token

from tq.admin.answer import EXIT_OK, EXIT_REFUSED, Answer, Block, Cell, Facts, Listing, at, counted, document
from tq.admin.operator import Operated, Operator
from tq.client import DeadAction
from tq.core.errors import ConfigError, TaskNotFound
from tq.core.ids import TaskId, format_id, parse_id
from tq.core.lifecycle import TaskState
from tq.core.task import TaskView

LIMIT_DEFAULT = 50

Listed = Literal["running", "ready", "scheduled", "dead"]
_LIVE: tuple[Listed, ...] = ("running", "ready", "scheduled")


def _task_id(_kind: object, tokens: Sequence[Token]) -> TaskId:
    try:
        return parse_id(tokens[0].value)
    except ValueError as error:
        raise ConfigError(str(error)) from None


Id = Annotated[TaskId, Parameter(converter=_task_id)]
Limit = Annotated[int, Parameter(help="Most tasks to list.")]
OfQueue = Annotated[str | None, Parameter(help="Only those of this queue.")]

task = App(name="task", help="Show, cancel or retry single tasks.")


def tasks(
    *,
    queue: OfQueue = None,
    state: Annotated[Listed | None, Parameter(help="Only those in this state; without it all but the dead.")] = None,
    limit: Limit = LIMIT_DEFAULT,
    operator: Operated,
) -> Answer:
    """List tasks: those that run, then ready ones as they would be handed out, then scheduled ones."""
    states = _LIVE if state is None else (state,)
    found: list[TaskView] = []
    for each in states:
        found += take(operator, each, queue, limit - len(found))
    header = ("ID", "NAME", "QUEUE", "STATE", "PRIORITY", "ATTEMPTS", "ENQUEUED", "DUE", "WORKER")
    rows: list[tuple[Cell, ...]] = [
        (
            format_id(view.id),
            view.name,
            view.queue,
            _state(view),
            view.priority,
            attempts(view),
            at(view.enqueued_at),
            at(view.due_at),
            view.worker,
        )
        for view in found
    ]
    return Answer(document(found), [Listing(header, rows, "There are no such tasks.")])


def take(operator: Operator, state: Listed, queue: str | None, limit: int) -> list[TaskView]:
    """Return up to *limit* tasks in *state*.

    Raises:
        ConfigError: *limit* is negative.
    """
    if limit < 0:
        raise ConfigError(f"--limit must be 0 or more; got {limit}")
    return list(operator.client.list_tasks(TaskState(state), queue, limit))


@task.command
def show(task_id: Id, /, *, operator: Operated) -> Answer:
    """Show one task, with the traceback of its last failure; its arguments and its result stay private."""
    (view,) = operator.client.get([task_id])
    if view is None:
        raise TaskNotFound(f"no task {format_id(task_id)}: never enqueued, purged, or past the time its result is kept")
    blocks: list[Block] = [Facts(list(_facts(view)))]
    if view.failure is not None:
        blocks.append(view.failure.traceback.rstrip() or f"{view.failure.type}: {view.failure.message}")
    return Answer(document(view), blocks)


def _facts(view: TaskView) -> Iterator[tuple[str, Cell]]:
    yield "id", format_id(view.id)
    yield "name", view.name
    yield "queue", view.queue
    yield "state", _state(view)
    yield "reason", view.reason
    yield "priority", view.priority
    yield "attempts", attempts(view)
    yield "losses", view.losses
    yield "generation", view.generation
    yield "worker", view.worker
    yield "enqueued", at(view.enqueued_at)
    yield "due", at(view.due_at)
    yield "finished", at(view.finished_at)
    yield "timeout", None if view.timeout_ms is None else f"{view.timeout_ms / 1_000:g} s"
    yield "arguments", None if view.payload_bytes is None else counted(view.payload_bytes, "byte")
    yield "result", None if view.result is None else counted(len(view.result), "byte")


@task.command
def cancel(*task_ids: Id, operator: Operated) -> Answer:
    """Withdraw tasks that are ready or scheduled; one that runs or has ended is refused."""
    named = some(task_ids)
    refused = operator.client.cancel(named)
    gone = [format_id(each) for each in named if each not in refused]
    lines = [f"Cancelled {counted(len(gone), 'task')}."] if gone else []
    lines += [f"Not cancelled: {error} ({error.code.value})" for error in refused.values()]
    told: list[object] = [
        {"id": format_id(each), "code": error.code.value, "text": str(error)} for each, error in refused.items()
    ]
    return Answer({"cancelled": list(gone), "refused": told}, ["\n".join(lines)], EXIT_REFUSED if refused else EXIT_OK)


@task.command
def retry(*task_ids: Id, operator: Operated) -> Answer:
    """Put dead tasks back into their queues, as new generations with all their attempts."""
    count = operator.client.control_dead(DeadAction.REDRIVE, task_ids=some(task_ids))
    return Answer({"action": "redrive", "tasks": count}, [f"Redrove {counted(count, 'task')}."])


def some(task_ids: Sequence[TaskId]) -> list[TaskId]:
    """Return the ids given, each once.

    Raises:
        ConfigError: There are none.
    """
    if not task_ids:
        raise ConfigError("name at least one task by its id")
    return list(dict.fromkeys(task_ids))


def attempts(view: TaskView) -> str:
    """Return the failed attempts of how many a task may have: ``1/5``."""
    return str(view.attempts) if view.max_attempts is None else f"{view.attempts}/{view.max_attempts}"


def _state(view: TaskView) -> str:
    """Return the state; a running task that has not said that it started is merely held by its worker."""
    is_held = view.state is TaskState.RUNNING and not view.started
    return "running (held)" if is_held else view.state.value
