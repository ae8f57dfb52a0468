"""The app whose tasks the acceptance tests run: some do their work, most misbehave, all leave a trace.

Each execution appends one line to a file, by one write: ``name key task-id attempt worker``.
"""

import asyncio
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tq import App, Reject, Retry, RetryPolicy, current_task
from tq.app.declared import DeclaredTask

JOURNAL_VARIABLE = "ACCEPTANCE_JOURNAL"
AT_ONCE = RetryPolicy(max_attempts=2, backoff_ms=20, backoff_max_ms=20)
# So often no chaos kills one task's worker.
EVER = 100

app = App()
future = App()


def note(key: str, name: str | None = None) -> None:
    """Leave the trace of an execution."""
    task = current_task()
    line = f"{name or task.name} {key} {task.id} {task.attempt} {task.worker}\n"
    journal = os.open(os.environ[JOURNAL_VARIABLE], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


# ------------------------------------------------------------------------------------------------ what works


@app.task(name="echo", retry=AT_ONCE)
async def echo(key: str) -> str:
    note(key)
    return key


@app.task(name="echo_plain", retry=AT_ONCE)
def echo_plain(key: str) -> str:
    note(key)
    return key


@future.task(name="of_the_future")
async def of_the_future(key: str) -> str:
    note(key)
    return key


@app.task(name="work", retry=AT_ONCE, max_losses=EVER)
async def work(key: str, kind: str, seconds: float) -> str:
    note(key)
    await asyncio.sleep(seconds)
    return _outcome(key, kind)


@app.task(name="work_plain", retry=AT_ONCE, max_losses=EVER)
def work_plain(key: str, kind: str, seconds: float) -> str:
    note(key)
    time.sleep(seconds)
    return _outcome(key, kind)


def _outcome(key: str, kind: str) -> str:
    """End as *kind* says: ``done``, ``flaky`` (the second attempt works), ``failing`` or ``rejected``."""
    if kind == "failing" or (kind == "flaky" and current_task().attempt == 1):
        raise ValueError(f"{key} fails")
    if kind == "rejected":
        raise Reject(f"{key} is of no use")
    return f"result of {key}"


@app.task(name="gated", retry=AT_ONCE)
async def gated(directory: str, key: str) -> str:
    """Wait until a file named like the worker is in *directory*, then say which worker it was."""
    note(key)
    worker = current_task().worker
    while not Path(directory, worker).exists():  # noqa: ASYNC110, ASYNC240 - the test opens the gate from another process
        await asyncio.sleep(0.01)
    note(key, "opened")
    return worker


@app.task(name="gated_plain", retry=AT_ONCE)
def gated_plain(directory: str, key: str) -> str:
    note(key)
    worker = current_task().worker
    while not Path(directory, worker).exists():
        time.sleep(0.01)
    note(key, "opened")
    return worker


# Each task as fits the pool: a plain function where there is no loop.
WORK: dict[str, DeclaredTask[[str, str, float], Any, str]] = {
    "async": work,
    "thread": work_plain,
    "process": work_plain,
}
GATED: dict[str, DeclaredTask[[str, str], Any, str]] = {
    "async": gated,
    "thread": gated_plain,
    "process": gated_plain,
}

# ----------------------------------------------------------------------------------------- what misbehaves


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Fatal(BaseException):
    pass


@app.task(name="raises", retry=AT_ONCE)
async def raises() -> None:
    raise ValueError("as it should")


@app.task(name="raises_plain", retry=AT_ONCE)
def raises_plain() -> None:
    raise ValueError("as it should")


@app.task(name="raises_unspeakable", retry=AT_ONCE)
async def raises_unspeakable() -> None:
    raise Unspeakable


@app.task(name="raises_a_megabyte", retry=AT_ONCE)
async def raises_a_megabyte() -> None:
    raise ValueError("x" * 1_000_000)


@app.task(name="raises_surrogates", retry=AT_ONCE)
async def raises_surrogates() -> None:
    raise ValueError("\udcff\ud800")


@app.task(name="raises_fatal", retry=AT_ONCE)
async def raises_fatal() -> None:
    raise Fatal("not even an Exception")


@app.task(name="raises_cancelled", retry=AT_ONCE)
async def raises_cancelled() -> None:
    raise asyncio.CancelledError("of its own accord")


@app.task(name="raises_stop_iteration", retry=AT_ONCE)
def raises_stop_iteration() -> None:
    raise StopIteration(1)


@app.task(name="raises_generator_exit", retry=AT_ONCE)
async def raises_generator_exit() -> None:
    raise GeneratorExit


@app.task(name="recurses", retry=AT_ONCE)
async def recurses() -> None:
    def deeper() -> None:
        deeper()

    deeper()


@app.task(name="exits_politely", retry=AT_ONCE)
async def exits_politely() -> None:
    sys.exit(7)


@app.task(name="exits_politely_plain", retry=AT_ONCE)
def exits_politely_plain() -> None:
    sys.exit(7)


@app.task(name="interrupts", retry=AT_ONCE)
async def interrupts() -> None:
    raise KeyboardInterrupt


@app.task(name="interrupts_plain", retry=AT_ONCE)
def interrupts_plain() -> None:
    raise KeyboardInterrupt


@app.task(name="rejects", retry=AT_ONCE)
async def rejects() -> None:
    raise Reject("of no use")


@app.task(name="returns_reject", retry=AT_ONCE)
async def returns_reject() -> Reject:
    return Reject("of no use")


@app.task(name="rejects_by_type", retry=AT_ONCE, reject_on=(KeyError,))
async def rejects_by_type() -> None:
    raise KeyError("gone")


@app.task(name="retries", retry=AT_ONCE)
async def retries() -> None:
    raise Retry(after=0.01, message="not yet")


@app.task(name="retries_once", retry=RetryPolicy(max_attempts=2, backoff_ms=600_000))
async def retries_once() -> int:
    if current_task().attempt == 1:
        raise Retry(after=0.01)
    return current_task().attempt


@app.task(name="retries_at_no_time", retry=AT_ONCE)
async def retries_at_no_time() -> None:
    raise Retry(after=float("nan"))


@app.task(name="returns_object", retry=AT_ONCE)
async def returns_object() -> object:
    return object()


@app.task(name="returns_object_plain", retry=AT_ONCE)
def returns_object_plain() -> object:
    return object()


@app.task(name="returns_a_loop", retry=AT_ONCE)
async def returns_a_loop() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


@app.task(name="returns_too_much", retry=AT_ONCE)
async def returns_too_much() -> bytes:
    return bytes(300 * 1024)


@app.task(name="returns_too_much_plain", retry=AT_ONCE)
def returns_too_much_plain() -> bytes:
    return bytes(300 * 1024)


@app.task(name="hangs", timeout=0.5, retry=RetryPolicy(max_attempts=1))
async def hangs() -> None:
    await asyncio.sleep(3_600)


@app.task(name="hangs_plain", timeout=0.5, retry=RetryPolicy(max_attempts=1))
def hangs_plain() -> None:
    time.sleep(30)


@app.task(name="hangs_deaf", timeout=0.5, retry=RetryPolicy(max_attempts=1))
async def hangs_deaf() -> None:
    """Hear every cancellation and go on, for as long as a test lasts."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue


@app.task(name="hangs_deaf_plain", timeout=0.5, retry=RetryPolicy(max_attempts=1))
def hangs_deaf_plain() -> None:
    """Hear every interrupt and go on."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001 - that is how badly it behaves
            continue


DEAF: dict[str, DeclaredTask[[], Any, None]] = {"async": hangs_deaf, "thread": hangs_deaf_plain}


@app.task(name="blocks", retry=AT_ONCE)
async def blocks(key: str, seconds: float) -> str:
    note(key)
    time.sleep(seconds)  # noqa: ASYNC251 - it must not, and does
    return key


@app.task(name="dies", retry=AT_ONCE, max_losses=2)
async def dies(key: str = "dies") -> None:
    note(key)
    os._exit(3)


@app.task(name="dies_plain", retry=AT_ONCE, max_losses=2)
def dies_plain(key: str = "dies_plain") -> None:
    note(key)
    os._exit(3)


@app.task(name="picky", retry=AT_ONCE, max_losses=2)
async def picky(key: str) -> str:
    """Do well by all keys but one."""
    note(key)
    if key == "poison":
        os._exit(3)
    return key


@app.task(name="segfaults", retry=AT_ONCE, max_losses=2)
def segfaults(key: str = "segfaults") -> None:
    note(key)
    ctypes.string_at(0)


@app.task(name="closes_everything", retry=AT_ONCE, max_losses=2)
def closes_everything() -> None:
    """Close descriptors that are not its own, its process's socket among them."""
    os.closerange(3, 256)


@app.task(name="forks", retry=AT_ONCE)
def forks() -> str:
    """Leave a child of its own behind for a while."""
    if not os.fork():
        time.sleep(1)
        os._exit(0)
    return "forked"


@app.task(name="forks_itself", retry=AT_ONCE)
def forks_itself(end: str) -> tuple[bool, int]:
    """Tell how a copy of this process ended that left this handler by *end*."""
    return _of_a_copy(end)


@app.task(name="forks_itself_async", retry=AT_ONCE)
async def forks_itself_async(end: str) -> tuple[bool, int]:
    """Do so on an event loop."""
    if end != "awaits":
        return _of_a_copy(end)
    copy = os.fork()
    if not copy:
        await asyncio.sleep(0.01)
    return _end_of(copy)


def _of_a_copy(end: str) -> tuple[bool, int]:
    copy = os.fork()
    if copy:
        return _end_of(copy)
    match end:
        case "returns":
            return False, 0
        case "exits":
            sys.exit(7)
        case "exits with a word":
            sys.exit("a word")
        case "is terminated":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        case _:
            pass
    raise ValueError(end)


def _end_of(copy: int) -> tuple[bool, int]:
    """Tell whether the process *copy* ended within 10 s, and its exit code."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        done, status = os.waitpid(copy, os.WNOHANG)
        if done:
            return True, os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(copy, signal.SIGKILL)
    os.waitpid(copy, 0)
    return False, 0


@app.task(name="waits", retry=AT_ONCE, max_losses=2)
async def waits(key: str, seconds: float) -> str:
    note(key)
    await asyncio.sleep(seconds)
    return key


@app.task(name="swallow", retry=AT_ONCE, max_losses=EVER, result_ttl=0)
async def swallow(payload: str) -> None:
    """Take what is long and leave no trace."""
