"""The embedded broker: the real service in a thread of this process, on memory.

Its clients speak the real protocol to it over socket pairs, so that what passes in a test
passes against a daemon.  Invariant: nothing but sockets is shared with the other threads.
"""

import asyncio
import logging
import random
import socket
import threading
import time

from tq.broker.config import BrokerSettings
from tq.broker.service import BrokerService
from tq.broker.sources import Log, Sources
from tq.core.errors import StoreError
from tq.store.memory import MemoryStore

_START_S_MAX = 10.0
_log = logging.getLogger("tq.broker")


class EmbeddedBroker:
    """A broker on memory, gone with `close` or with the process."""

    def __init__(self, settings: BrokerSettings | None = None) -> None:
        self._settings = settings or BrokerSettings(store="memory")
        self._loop = asyncio.new_event_loop()
        self._service: BrokerService | None = None
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="tq embedded broker", daemon=True)
        self._thread.start()
        if not self._started.wait(_START_S_MAX):
            raise StoreError(f"the embedded broker did not start within {_START_S_MAX:g} s")

    def connect(self) -> socket.socket:
        """Return our end of a new connection to the broker.

        Raises:
            StoreError: The broker is closed.
        """
        if not self._thread.is_alive():
            raise StoreError("the embedded broker is closed")
        ours, theirs = socket.socketpair()
        asyncio.run_coroutine_threadsafe(self._accept(theirs), self._loop)
        return ours

    def close(self) -> None:
        """Stop the broker, and with it everything it holds. Idempotent."""
        if self._thread.is_alive() and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _accept(self, theirs: socket.socket) -> None:
        assert self._service is not None
        theirs.setblocking(False)
        await self._loop.connect_accepted_socket(self._service.connection, theirs)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        store = MemoryStore()
        sources = Sources(lambda: time.time_ns() // 1_000_000, time.monotonic, random.random, lambda: 0)
        self._service = BrokerService(store, self._settings, sources, standard_log(_log), version="embedded")
        self._stop = asyncio.Event()
        await self._service.start()
        self._started.set()
        await self._stop.wait()
        await self._service.stop()
        # The transports close on the next turns of the loop, which ends with this coroutine.
        await asyncio.sleep(0)
        store.close()


def standard_log(logger: logging.Logger) -> Log:
    """Return a service's log that writes to the standard library's *logger*."""
    return Log(*(_Writer(logger, level) for level in (logging.INFO, logging.WARNING, logging.ERROR)))


class _Writer:
    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level

    def __call__(self, event: str, *, exc_info: BaseException | None = None, **values: object) -> None:
        if self._logger.isEnabledFor(self._level):
            text = " ".join([event, *(f"{name}={value}" for name, value in values.items())])
            self._logger.log(self._level, text, exc_info=exc_info)


def open_memory() -> EmbeddedBroker:
    """Start an embedded broker on memory."""
    return EmbeddedBroker()
