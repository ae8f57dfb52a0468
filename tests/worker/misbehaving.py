"""The app of the worker's tests on a real broker: handlers that do what handlers should not."""

import asyncio
import os
import signal
import sys
import time
from typing import Any

from tq.app.app import App
from tq.app.context import current_task
from tq.core.outcome import Reject, Retry
from tq.core.retry import RetryPolicy

app = App("memory:")

TWICE = RetryPolicy(max_attempts=2, backoff_ms=10, jitter=0)


@app.task(name="measure")
async def measure(text: str) -> int:
    return len(text)


@app.task(name="double")
async def double(x: int) -> int:
    return 2 * x


@app.task(name="plain")
def plain(x: int) -> int:
    return 2 * x


@app.task(name="fail", retry=TWICE)
def fail() -> None:
    raise ValueError("no good")


@app.task(name="flaky", retry=RetryPolicy(max_attempts=3, backoff_ms=1, jitter=0))
async def flaky(failures: int) -> int:
    attempt = current_task().attempt
    if attempt <= failures:
        raise Retry(after=0.01)
    return attempt


@app.task(name="reject")
def reject() -> Reject:
    return Reject("unknown customer")


@app.task(name="hang", retry=TWICE, timeout=0.3)
async def hang() -> None:
    await asyncio.sleep(60)


@app.task(name="hang_plain", retry=TWICE, timeout=0.3)
def hang_plain() -> None:
    time.sleep(5)


@app.task(name="block")
async def block(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251  # what should not be done is what this is for
    return "done"


@app.task(name="exit", retry=TWICE)
def exit_at_once() -> None:
    os._exit(3)


@app.task(name="exit_in_the_first_step", max_losses=2)
async def exit_in_the_first_step() -> None:
    os._exit(3)


@app.task(name="crash", retry=TWICE)
def crash() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


@app.task(name="leave", retry=TWICE)
def leave() -> None:
    sys.exit(4)


@app.task(name="unencodable")
def unencodable() -> Any:
    return object()


@app.task(name="large")
def large() -> bytes:
    return b"x" * 400_000


@app.task(name="pause")
async def pause(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"
