"""Queues: what they hold, and pausing, resuming and purging one."""

from typing import Annotated

from cyclopts import App, Parameter

from tq.admin.answer import Answer, Block, Facts, Listing, counted, document
from tq.admin.operator import Declined, Operated
from tq.client import QueueAction
from tq.core.queue import QueueView

queue = App(name="queue", help="Show, pause, resume or purge one queue.")


def queues(*, operator: Operated) -> Answer:
    """List all queues with what they hold."""
    views = sorted(operator.client.queues(), key=lambda view: view.name)
    header = ("QUEUE", "STATE", "READY", "RUNNING", "SCHEDULED", "DEAD", "WORKERS", "COMPLETED", "FAILED")
    rows = [
        (
            view.name,
            _state(view),
            view.ready,
            view.running,
            view.scheduled,
            view.dead,
            view.workers,
            view.completed_total,
            view.failed_total,
        )
        for view in views
    ]
    return Answer(document(views), [Listing(header, list(rows), "There are no queues yet.")])


@queue.command
def show(name: str, /, *, operator: Operated) -> Answer:
    """Show one queue: counts, totals, and names of waiting tasks that no worker serves."""
    view = operator.queue(name)
    blocks: list[Block] = [
        Facts(
            [
                ("queue", view.name),
                ("state", _state(view)),
                ("workers", view.workers),
                ("ready", view.ready),
                ("running", view.running),
                ("scheduled", view.scheduled),
                ("dead", view.dead),
            ]
        ),
        Facts(
            [
                ("enqueued in all", view.enqueued_total),
                ("completed in all", view.completed_total),
                ("failed attempts in all", view.failed_total),
                ("lost deliveries in all", view.lost_total),
                ("dead in all", view.dead_total),
                ("cancelled in all", view.cancelled_total),
                ("purged in all", view.purged_total),
            ]
        ),
    ]
    if view.names_unserved:
        names = ", ".join(view.names_unserved)
        blocks.append(f"No connected worker has a handler for: {names}")
    return Answer(document(view), blocks)


@queue.command
def pause(name: str, /, *, operator: Operated) -> Answer:
    """Stop handing out a queue's tasks; enqueues go on, and what runs goes on."""
    waiting = operator.client.control_queue(name, QueueAction.PAUSE)
    return _done(name, QueueAction.PAUSE, waiting, f"Paused {name}: {counted(waiting, 'task')} wait.")


@queue.command
def resume(name: str, /, *, operator: Operated) -> Answer:
    """Hand out a paused queue's tasks again."""
    waiting = operator.client.control_queue(name, QueueAction.RESUME)
    return _done(name, QueueAction.RESUME, waiting, f"Resumed {name}: {counted(waiting, 'task')} waited.")


@queue.command
def purge(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    operator: Operated,
) -> Answer:
    """Drop a queue's ready and scheduled tasks for good; what runs is left to end."""
    if not yes:
        view = operator.queue(name)
        count = counted(view.ready + view.scheduled, "ready and scheduled task")
        if not operator.confirm(f"Drop the {count} of queue {name} for good?"):
            raise Declined(f"queue {name} was not purged")
    dropped = operator.client.control_queue(name, QueueAction.PURGE)
    return _done(name, QueueAction.PURGE, dropped, f"Purged {name}: {counted(dropped, 'task')} dropped.")


def _done(name: str, action: QueueAction, tasks: int, text: str) -> Answer:
    return Answer({"queue": name, "action": action.value, "tasks": tasks}, [text])


def _state(view: QueueView) -> str:
    return "purging" if view.purging else "paused" if view.paused else "active"
