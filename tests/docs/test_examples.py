"""The Python code of README.md and docs/getting-started.md runs, and prints what it says.

A block that starts with ``# NAME.py`` is that file; the others are programs that import
it.  The app's broker is inside this process, and a worker serves it from a thread.
What a line prints is written behind it: ``# prints: ...``.
"""

import asyncio
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from tq import App
from tq.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
STOP_S_MAX = 10.0


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
    """The name in the first line of a block that is a file of its own."""
    first = re.match(r"# (\w+\.py)\n", block)
    return first[1] if first else None


@contextmanager
def serving(app: App) -> Iterator[None]:
    """A worker in a thread of its own, stopped in good order."""
    loop = asyncio.new_event_loop()
    queues = [(name, 1) for name in sorted({handler.spec.queue for handler in app.registry})]
    worker = Worker(app.registry, app.dialer(), queues=queues, drain_timeout_s=1.0)
    thread = threading.Thread(target=lambda: loop.run_until_complete(worker.run()))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(worker.request_stop)
        thread.join(STOP_S_MAX)
        assert not thread.is_alive()
        loop.close()


@pytest.mark.acceptance
@pytest.mark.parametrize("document", ["README.md", "docs/getting-started.md"])
def test_the_code_of_a_document_runs_and_prints_what_it_says(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TQ_URL", "memory:")
    monkeypatch.syspath_prepend(tmp_path)
    files = {name: block for block in blocks(document) if (name := file_name(block))}
    programs = [block for block in blocks(document) if file_name(block) is None]
    for name, block in files.items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    (name,) = files
    module = import_module(name.removesuffix(".py"))

    try:
        with module.app, serving(module.app):
            for program in programs:
                exec(compile(program, document, "exec"), {"__name__": "program"})
    finally:
        del sys.modules[module.__name__]

    promised = [line for block in programs for line in re.findall(r"# prints: (.*)$", block, flags=re.MULTILINE)]
    assert programs
    assert promised
    assert capsys.readouterr().out.splitlines() == promised
