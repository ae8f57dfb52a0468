"""An event loop on virtual time: an hour of waiting costs nothing, and every run is the same run.

When nothing is ready the clock jumps to the next timer. There are no threads and no files
or sockets: what would wait for one is an error here, and so is a loop in which nothing can
happen any more (`Deadlock`) or in which no time passes (`Livelock`).

Invariant: the order of callbacks follows from the program alone. A program that iterates
over a set of objects still brings in their addresses; that is its own to avoid.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from tq.testing.clock import ManualClock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A busy second of simulation is some ten thousand turns, each of which lets time pass or comes close to one that does.
TURNS_IN_AN_INSTANT_MAX = 100_000

# A real loop wakes up late as well, and by more. A timer that is due to the last bit is not due for asyncio, once the
# seconds are so many that its own nanosecond of grace is lost in their sum.
_LATE_S = 0.000_001


class Deadlock(RuntimeError):
    """Everybody waits for something, and no timer is set: nothing will ever happen again."""


class Livelock(RuntimeError):
    """The loop turned and turned and no time passed: somebody calls himself at once, for ever."""


class VirtualSelector(selectors.BaseSelector):
    """Waits by moving the clock. The loop's own wake-up pipe may register; nothing else."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self._turns = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401 - the interface's
        """Take in the pipe, which is never read."""
        if self._keys:
            raise RuntimeError(f"the virtual loop does no real input or output; got {fileobj!r}")
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401 - the interface's
        """Let the pipe go."""
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is registered."""
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let *timeout* seconds pass at once; None means that nothing is planned."""
        if timeout is None:
            waiting = sorted(f"{task.get_name()} {_place(task)}" for task in asyncio.all_tasks())
            raise Deadlock(f"nothing is ready and no timer is set; waiting: {', '.join(waiting)}")
        if timeout > 0:
            self._clock.advance(timeout + _LATE_S)
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > TURNS_IN_AN_INSTANT_MAX:
                turns, self._turns = self._turns, 0
                # Private to asyncio, and only for the eyes of whoever looks for the culprit.
                ready = [repr(handle) for handle in getattr(asyncio.get_running_loop(), "_ready", ())]
                at_s = self._clock.monotonic()
                raise Livelock(f"{turns} turns of the loop at {at_s:.6f} s; ready: {', '.join(ready[:5])}")
        return []


def _place(task: "asyncio.Task[Any]") -> str:
    frames = task.get_stack(limit=1)
    return f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "nowhere"


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. Its time is *clock*'s; `unhandled` gathers what asyncio would only log."""

    def __init__(self, clock: ManualClock) -> None:
        self._virtual_clock = clock
        self.unhandled: list[dict[str, Any]] = []
        super().__init__(VirtualSelector(clock))
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._virtual_clock.monotonic()

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Call soon: there is one thread, and nobody to wake."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        """Refuse: what a thread does and when is not up to us."""
        raise RuntimeError(f"the virtual loop has no threads; got {func!r}")


def run_virtual(main: Coroutine[Any, Any, T], clock: ManualClock | None = None) -> T:
    """Run *main* on a loop of its own, cancel what it leaves behind, and return its result.

    Raises:
        Deadlock: *main* can never end.
        Livelock: Time has stopped.
        ExceptionGroup: Exceptions that nobody handled: of a callback, or of a task that nobody awaits.
    """
    loop = VirtualLoop(clock or ManualClock())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    if loop.unhandled:
        errors = [context.get("exception") or RuntimeError(context["message"]) for context in loop.unhandled]
        raise BaseExceptionGroup(f"unhandled in the virtual loop: {loop.unhandled[0]['message']}", errors)
    return result
