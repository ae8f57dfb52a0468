"""The worker process: the app, the worker over it, and the signals that end it."""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import msgspec

from tq.app.app import App
from tq.app.clients import dialer_of
from tq.app.context import add_task_fields
from tq.bin import logs
from tq.bin.application import ATTRIBUTE_DEFAULT, find_app
from tq.bin.reloading import reload
from tq.bin.supervising import Supervisor
from tq.core.errors import BrokerError, ConfigError
from tq.core.queue import DEFAULT_QUEUE
from tq.worker.config import QueueWeight, ServedQueues, WorkerSettings, parse_autoscale, parse_labels, parse_queues
from tq.worker.forks import keep_loop
from tq.worker.lifespan import HookFailed
from tq.worker.state import StateFile, ailment, default_path
from tq.worker.worker import Worker

_log = logging.getLogger("tq.worker")

# Coroutines wait for the outside most of the time, threads some of it, processes none of it.
_ASYNC_CONCURRENCY = 100
_THREAD_CONCURRENCY = 8

# For what handlers have left on the loop, once the worker has left; each was cancelled before.
_EXIT_S = 3.0


class Exit(IntEnum):
    """How the process ends; `tq.bin.worker` tells users."""

    OK = 0
    FAILED = 1


def work(settings: WorkerSettings) -> int:
    """Run a worker, or several processes of it, until SIGTERM, SIGINT, the end of a burst or a failure.

    Raises:
        UsageError: There is no such app, or its tasks contradict each other.
    """
    log_as(settings.log_level, settings.log_format)
    if settings.reload:
        reload(msgspec.structs.replace(settings, reload=False), work, Path.cwd())
        return Exit.OK
    is_asked_for = settings.state_file is not None
    if settings.processes == 1:
        return _work(settings, _state_file(settings, asked_for=is_asked_for), None)

    def run(number: int, orders: int) -> Exit:
        one = one_of(settings, number)
        return _work(one, _state_file(one, asked_for=is_asked_for), orders)

    return Supervisor(settings.processes, run, burst=settings.burst).supervise()


def one_of(settings: WorkerSettings, number: int) -> WorkerSettings:
    """Return the settings of worker process *number* of several."""
    return msgspec.structs.replace(
        settings,
        processes=1,
        name=settings.name and f"{settings.name}-{number}",
        state_file=state_paths(settings)[number - 1],
    )


def _work(settings: WorkerSettings, state_file: StateFile | None, orders: int | None) -> Exit:
    """Run one worker in this process; *orders* is where its supervisor tells it to stop."""
    # What the app says while it is imported is logged like the rest.
    app = find_app(settings.app, App, Path.cwd())
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(_run(settings, app, state_file, orders))
        guard = _exit_within(_EXIT_S, code, runner.get_loop())
    guard.cancel()
    return code


def log_as(level: str, form: str, colours: str = "auto") -> None:
    """Log what is at least *level* as *form*, with the task it was said in; child processes call it too.

    *colours* are yes, no or auto; a child's standard error is a pipe to this process, which may have a terminal.
    """
    logs.configure(level, form, processors=[add_task_fields], colours={"yes": True, "no": False}.get(colours))


def child_logs(settings: WorkerSettings) -> list[str]:
    """Return what has a child process log as this one does: `log_as` and its arguments."""
    colours = "yes" if sys.stderr.isatty() else "no"
    return [f"{log_as.__module__}:{log_as.__name__}", settings.log_level, settings.log_format, colours]


def served(settings: WorkerSettings, app: App) -> ServedQueues:
    """Return the queues to serve: those of the settings, else every one that a task of *app* names."""
    if settings.queues is not None:
        return parse_queues(settings.queues)
    names = sorted({handler.spec.queue for handler in app.registry}) or [DEFAULT_QUEUE]
    return ServedQueues([QueueWeight(name) for name in names], weighted=False)


def spell_queues(queues: ServedQueues) -> str:
    """Return the queues for a reader, who can tell a weight from the end of a name."""
    return ", ".join(f"{name} (weight {weight})" if queues.weighted else name for name, weight in queues.queues)


def concurrency(settings: WorkerSettings) -> int:
    """Return how many tasks run at a time, at most."""
    if settings.autoscale is not None:
        return parse_autoscale(settings.autoscale).high
    if settings.concurrency != "auto":
        return settings.concurrency
    match settings.pool:
        case "async":
            return _ASYNC_CONCURRENCY
        case "thread":
            return _THREAD_CONCURRENCY
        case "process":
            return os.cpu_count() or 1


def worker_name(settings: WorkerSettings) -> str:
    """Return what the worker is called in its state file: its name, else its app's."""
    return settings.name or settings.app


def state_paths(settings: WorkerSettings) -> list[Path]:
    """Return where the worker leaves its signs of life, one place for each of its processes."""
    path = settings.state_file or default_path(worker_name(settings), dict(os.environ), Path(tempfile.gettempdir()))
    if settings.processes == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number + 1}{path.suffix}") for number in range(settings.processes)]


def check(settings: WorkerSettings) -> Exit:
    """Say whether the worker with these settings works, by the signs of life that it leaves on this machine."""
    found = [why for path in state_paths(settings) if (why := ailment(path, time.time())) is not None]
    print("\n".join(found) or "it works")
    return Exit.FAILED if found else Exit.OK


async def _run(settings: WorkerSettings, app: App, state_file: StateFile | None, orders: int | None) -> Exit:
    url = settings.url or app.url
    queues = served(settings, app)
    worker = Worker(
        app.registry,
        dialer_of(url),
        queues=queues.queues,
        weighted=queues.weighted,
        concurrency=concurrency(settings),
        pool=settings.pool,
        prefetch=None if settings.prefetch == "adaptive" else settings.prefetch,
        burst=settings.burst,
        name=settings.name,
        labels=parse_labels(settings.labels),
        state_file=state_file,
        drain_timeout_s=settings.drain_ms / 1_000,
        child_logs=child_logs(settings),
        max_tasks_per_child=None if settings.max_tasks_per_child == "unlimited" else settings.max_tasks_per_child,
        max_memory_per_child=None if settings.max_memory_per_child == "unlimited" else settings.max_memory_per_child,
        children_min=None if settings.autoscale is None else parse_autoscale(settings.autoscale).low,
        app=settings.app if ":" in settings.app else f"{settings.app}:{ATTRIBUTE_DEFAULT}",
    )
    if orders is None:
        _stop_on_signals(worker.request_stop)
    else:
        _obey(orders, worker.request_stop)
    keep_loop()
    _log.info(
        "serving queues %s of %s, %d at a time in the %s pool",
        spell_queues(queues),
        url,
        concurrency(settings),
        settings.pool,
        extra={"tasks": len(app.registry), "pid": os.getpid()},
    )
    try:
        await worker.run()
    except BrokerError as error:
        _log.error("the broker refuses this worker: %s (%s)", error, error.code.value)
        return Exit.FAILED
    except HookFailed as failure:
        _log.error("the worker cannot start", exc_info=failure.__cause__)
        return Exit.FAILED
    return Exit.OK


def _state_file(settings: WorkerSettings, *, asked_for: bool) -> StateFile | None:
    try:
        return StateFile(state_paths(settings)[0], worker_name(settings))
    except ConfigError as error:
        if asked_for:
            raise
        # Nobody has asked for it; where the file system cannot be written to, the worker still works.
        _log.warning("%s: --check will not find this worker; --state-file says where else", error)
        return None


def _exit_within(seconds: float, code: Exit, loop: asyncio.AbstractEventLoop) -> threading.Timer:
    """End the process by force if *loop* cannot be closed by then: a handler is deaf to its cancellation."""

    def exit_now() -> None:
        left = sorted(task.get_name() for task in asyncio.all_tasks(loop))
        _log.error("ending the process by force: %s did not end", ", ".join(left) or "a thread of the loop's executor")
        logging.shutdown()
        os._exit(code)

    guard = threading.Timer(seconds, exit_now)
    guard.daemon = True
    guard.start()
    return guard


def _obey(orders: int, stop: Callable[[], None]) -> None:
    """Stop when told to by the supervisor, a second time at once; signals, which may come to all, count once."""
    loop = asyncio.get_running_loop()
    told = 0

    def stop_at_least(times: int) -> None:
        nonlocal told
        while told < times:
            told += 1
            stop()

    given = 0

    def hear() -> None:
        nonlocal given
        data = os.read(orders, 16)
        if not data:
            # The supervisor is gone.
            loop.remove_reader(orders)
        given += len(data)
        stop_at_least(given or 1)

    loop.add_reader(orders, hear)
    _stop_on_signals(lambda: stop_at_least(1))


def _stop_on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's event loop; None, for asyncio's own, where uvloop does not exist."""
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows.
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
