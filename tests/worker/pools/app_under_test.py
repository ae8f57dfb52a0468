"""The app that the child processes of these tests import, with handlers of every kind."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tq.app.app import App
from tq.app.context import SoftTimeout, TaskContext, current_task
from tq.app.lifespan import PROVIDED
from tq.app.middleware import Middleware


class Note(Middleware):
    """Leaves its mark where handlers can see it."""

    def before(self, context: TaskContext) -> None:
        noted.append(context.name)


noted: list[str] = []
SAY_CLOSED = "TESTS_SAY_CLOSED"
app = App("memory:", middleware=[Note()])


class Opened(list[str]):
    """What the hook below opens."""


@app.on_worker_start
async def opened() -> AsyncIterator[Opened]:
    yield Opened([f"opened in {os.getpid()}"])
    if said_at := os.environ.get(SAY_CLOSED):
        _say(said_at, "closed")


@app.task(name="opened")
async def what_was_opened(*, opened: Opened = PROVIDED) -> list[str]:
    return list(opened)


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="double")
def double(x: int) -> int:
    return 2 * x


@app.task(name="double_later")
async def double_later(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


@app.task(name="context")
def context() -> list[object]:
    task = current_task()
    return [task.name, task.attempt, task.worker, threading.current_thread() is threading.main_thread()]


@app.task(name="exit")
def exit_with(status: int) -> None:
    os._exit(status)


@app.task(name="complain")
def complain(text: str, number: int) -> None:
    """Say *text*, as native code would, and die of a signal; 0: live on."""
    os.write(2, text.encode())
    if number:
        crash(number)


@app.task(name="crash")
def crash(number: int) -> None:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@app.task(name="be_counted")
def be_counted(path: str, number: int) -> None:
    """Die as the kernel's count of the dead, in *path*, goes up."""
    _say(path, "killed")
    crash(number)


@app.task(name="segfault")
def segfault() -> None:
    ctypes.string_at(0)


@app.task(name="leave_a_program")
def leave_a_program(text: str) -> None:
    """Die, and leave behind a program that says *text* some time later."""
    said_later = f"import time, sys; time.sleep(0.5); print({text!r}, file=sys.stderr)"
    subprocess.Popen([sys.executable, "-c", said_later])
    os._exit(1)


@app.task(name="leave")
def leave() -> None:
    sys.exit(7)


@app.task(name="sleep")
def sleep(path: str) -> None:
    """Say in *path* that it runs, then sleep in one long system call."""
    _say(path, "started")
    try:
        time.sleep(60)
    finally:
        _say(path, "put in order")


@app.task(name="wait")
async def wait(path: str) -> None:
    _say(path, "started")
    await asyncio.sleep(60)


@app.task(name="tidy", soft_timeout=1)
def tidy(path: str) -> str:
    """Sleep in one long system call until it is reminded."""
    _say(path, "started")
    try:
        time.sleep(60)
    except SoftTimeout:
        return "in order"
    return "late"


@app.task(name="tidy_later", soft_timeout=1)
async def tidy_later(path: str) -> str:
    _say(path, "started")
    try:
        await asyncio.sleep(60)
    except SoftTimeout:
        return "in order"
    return "late"


@app.task(name="spin")
def spin(path: str) -> None:
    """Heed nothing."""
    _say(path, "started")
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            continue


@app.task(name="read")
def read() -> str:
    return sys.stdin.read()


@app.task(name="noted")
def what_was_noted() -> list[str]:
    return noted


@app.task(name="hoard")
def hoard(size: int) -> None:
    noted.append("x" * size)


@app.task(name="leave_a_thread")
def leave_a_thread() -> None:
    """Leave a thread that keeps the process from ending."""
    threading.Thread(target=time.sleep, args=(60,)).start()


def _say(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text} {os.getpid()}\n")
