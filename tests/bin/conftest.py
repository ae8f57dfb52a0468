"""What a program reads and sets outside of itself is as before in every test."""

import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from tq.bin.declaration import PREFIX


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    # Help is folded to the terminal: this one folds nothing.
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
