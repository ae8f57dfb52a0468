"""The Python code of the documents runs, and prints what it says.

A block that starts with ``# NAME.py`` is that file; the others are programs, and one
document's share their names.  A broker listens, `App()` finds it, and a worker serves the
app of each file.  What a line prints is written behind it: ``print(...)  # this``.
"""

import asyncio
import logging
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import groupby
from pathlib import Path

import pytest

from tq import App
from tq.broker.config import Address, BrokerSettings
from tq.broker.embedded import standard_log
from tq.broker.service import BrokerService
from tq.broker.sources import Sources
from tq.server.tcp import bound, listen
from tq.store.memory import MemoryStore
from tq.worker import Worker

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/getting-started.md", "docs/tasks-and-workers.md", "docs/testing.md"]
PATIENCE_S = 10.0


def blocks(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
    """The name in the first line of a block that is a file of its own."""
    first = re.match(r"# (\w+\.py)\n", block)
    return first[1] if first else None


def promised(block: str) -> list[str]:
    """What the lines of a program say that they print."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", block, flags=re.MULTILINE)


def without_repeats(lines: list[str]) -> list[str]:
    """A line in a loop is written once."""
    return [line for line, _ in groupby(lines)]


@contextmanager
def loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        loop.close()


class Host:
    """A broker and workers in one loop."""

    def __init__(self) -> None:
        sources = Sources(lambda: time.time_ns() // 1_000_000, time.monotonic, random.random, lambda: 0)
        settings = BrokerSettings(store="memory", drain_ms=100)
        self._service = BrokerService(MemoryStore(), settings, sources, standard_log(logging.getLogger("tq.broker")))
        self._workers: dict[Worker, asyncio.Task[None]] = {}

    async def start(self) -> str:
        await self._service.start()
        self._server = await listen(self._service, Address("127.0.0.1", 0))
        return f"tq://{bound(self._server)}"

    async def serve(self, app: App) -> None:
        queues = [(name, 1) for name in sorted({handler.spec.queue for handler in app.registry})]
        worker = Worker(app.registry, app.dialer(), queues=queues, drain_timeout_s=1.0)
        self._workers[worker] = asyncio.create_task(worker.run())

    async def stop(self) -> None:
        for worker in self._workers:
            worker.request_stop()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._workers.values())
            self._server.close()
            await self._service.stop()


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports is forgotten: two documents may have a file of the same name."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith("tq."):
            del sys.modules[name]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_code_of_a_document_runs_and_prints_what_it_says(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = {name: block for block in blocks(document) if (name := file_name(block))}
    programs = [block for block in blocks(document) if file_name(block) is None]
    for name, block in files.items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    namespace = {"__name__": "program"}

    with loop_in_a_thread() as loop:
        host = Host()
        monkeypatch.setenv("TQ_URL", asyncio.run_coroutine_threadsafe(host.start(), loop).result(PATIENCE_S))
        apps: list[App] = [import_module(name.removesuffix(".py")).app for name in files]
        try:
            for app in apps:
                if len(app.registry) and app.url != "memory:":
                    asyncio.run_coroutine_threadsafe(host.serve(app), loop).result(PATIENCE_S)
            for program in programs:
                exec(compile(program, document, "exec"), namespace)
        finally:
            for app in [*apps, *(value for value in namespace.values() if isinstance(value, App))]:
                app.close()
            asyncio.run_coroutine_threadsafe(host.stop(), loop).result(PATIENCE_S)

    said = [line for program in programs for line in promised(program)]
    assert said
    assert without_repeats(capsys.readouterr().out.splitlines()) == without_repeats(said)
