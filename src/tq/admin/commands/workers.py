"""Workers: who is connected, what they hold, and what ails them."""

from collections import Counter

from tq.admin.answer import Answer, Cell, Listing, at, document
from tq.admin.operator import Operated
from tq.core.worker import WorkerView


def workers(*, operator: Operated) -> Answer:
    """List the live workers."""
    views = sorted(operator.client.workers(), key=lambda view: (view.info.name, view.session))
    header = ("WORKER", "HOST", "PID", "POOL", "CONCURRENCY", "HELD", "STARTED", "QUEUES", "LABELS", "SEEN", "STATE")
    return Answer(document(views), [Listing(header, [row(view) for view in views], "There are no workers.")])


def row(view: WorkerView) -> tuple[Cell, ...]:
    """Return the cells of one worker, in the order of the header."""
    return (
        view.info.name,
        view.info.host,
        str(view.info.pid),
        view.info.pool,
        view.info.concurrency,
        view.held,
        view.started,
        ", ".join(view.queues),
        ", ".join(f"{key}={value}" for key, value in sorted(view.info.labels.items())),
        at(view.seen_at),
        _state(view),
    )


def _state(view: WorkerView) -> str:
    """Return what is remarkable about a worker, most pressing first."""
    if not view.connected:
        return "disconnected"
    if view.blocked_by is not None:
        return f"blocked by {view.blocked_by}"
    if view.isolating:
        return "isolating a suspect"
    return f"stuck: {_counted(view.stuck)}" if view.stuck else "connected"


def _counted(names: list[str]) -> str:
    """Return *names* each once, with how many there are of it."""
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in sorted(Counter(names).items()))
