"""What the workers of a soak run: of fifty tasks one fails for good, one is of no use, two work the second time."""

from typing import Any, NamedTuple

from tq import App, Reject, RetryPolicy, current_task
from tq.app.declared import DeclaredTask
from tq.core.lifecycle import TaskState

QUEUE = "soak"
_OF = 50
_FAILING, _USELESS, _FLAKY = 0, 1, (2, 3)
_AT_ONCE = RetryPolicy(max_attempts=2, backoff_ms=50, backoff_max_ms=50)
# So often no accident meets one task.
_EVER = 100
RESULT_S = 15.0


class Declared(NamedTuple):
    """The tasks of one app."""

    work: DeclaredTask[[int], Any, int]
    probe: DeclaredTask[[], Any, bool]


def declared(app: App) -> Declared:
    """Declare the tasks in *app*."""

    @app.task(name="work", queue=QUEUE, retry=_AT_ONCE, max_losses=_EVER, result_ttl=RESULT_S)
    async def work(number: int) -> int:
        kind = number % _OF
        if kind == _FAILING or (kind in _FLAKY and current_task().attempt == 1):
            raise ValueError(number)
        if kind == _USELESS:
            raise Reject(str(number))
        return number

    @app.task(name="probe", queue="probe", priority=255, max_losses=_EVER, result_ttl=RESULT_S)
    async def probe() -> bool:
        return True

    return Declared(work, probe)


def end_of(number: int) -> TaskState:
    """Return how the task of *number* must end."""
    return TaskState.DEAD if number % _OF in {_FAILING, _USELESS} else TaskState.COMPLETED


app = App()
tasks = declared(app)
