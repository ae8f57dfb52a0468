"""The broker process: a store, the service over it, a socket, and the signals that end it.

Invariant: what is opened is closed in the opposite order, whatever fails; the store is
closed last, after all that was acknowledged is in it.
"""

import asyncio
import os
import signal
from enum import IntEnum
from typing import Any

import msgspec
import structlog
import uvloop

from tq import __version__
from tq.bin import logs
from tq.bin.descriptors import Descriptors, share_out
from tq.bin.output import try_out
from tq.broker.config import BrokerSettings, parse_address
from tq.broker.opening import open_store
from tq.broker.service import BrokerService
from tq.broker.sources import Log, real_sources
from tq.core.errors import StoreError
from tq.server.tcp import bound, listen
from tq.store.base import Store


class Exit(IntEnum):
    """How the process ends; `tq.bin.broker` tells users."""

    OK = 0
    FAILED = 1
    STORE = 3
    ADDRESS = 4


def serve(settings: BrokerSettings, warning: str | None = None) -> Exit:
    """Run a broker until SIGTERM, SIGINT or a failure; *warning* is logged first.

    Raises:
        ConfigError: The store is not installed.
    """
    logs.configure(settings.log_level, settings.log_format)
    descriptors = share_out(settings.connections_max)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Process(settings, descriptors).run(warning))


class _Process:
    """One run of a broker."""

    def __init__(self, settings: BrokerSettings, descriptors: Descriptors) -> None:
        self._settings = msgspec.structs.replace(settings, connections_max=descriptors.connections)
        self._open_files_max = descriptors.store
        self._wanted = settings.connections_max
        self._log = structlog.stdlib.get_logger("tq.broker")
        self._signalled = asyncio.Event()
        self._hurried = asyncio.Event()

    async def run(self, warning: str | None) -> Exit:
        if warning is not None:
            self._log.warning(warning)
        if self._settings.connections_max < self._wanted:
            self._log.warning(
                "fewer connections than configured: raise the limit of open files (ulimit -n, LimitNOFILE=)",
                connections_max=self._wanted,
                possible=self._settings.connections_max,
            )
        self._watch_signals()
        try:
            holder = f"tq-broker: join it by tq://{self._settings.listen}"
            store = open_store(self._settings, holder, self._open_files_max)
        except StoreError as error:
            self._log.error("the data cannot be opened", data=str(self._settings.data), error=str(error))
            return Exit.STORE
        try:
            return await self._serve(store)
        finally:
            store.close()

    async def _serve(self, store: Store) -> Exit:
        log = Log(self._log.info, self._log.warning, self._log.error)
        service = BrokerService(store, self._settings, real_sources(), log, version=__version__)
        try:
            await service.start()
        except StoreError as error:
            self._log.error("the data cannot be read", data=str(self._settings.data), error=str(error))
            return Exit.STORE
        try:
            return await self._listen(service)
        finally:
            await self._stop(service)

    async def _listen(self, service: BrokerService) -> Exit:
        address = parse_address(self._settings.listen)
        try:
            server = await listen(service, address)
        except OSError as error:
            self._log.error("the address cannot be listened on", listen=str(address), error=str(error))
            return Exit.ADDRESS
        self._announce(str(bound(server)))
        try:
            return await self._wait(service)
        finally:
            server.close()

    def _announce(self, address: str) -> None:
        self._log.info(
            f"listening on {address}",
            version=__version__,
            store=self._settings.store,
            durability=self._settings.durability if self._settings.store == "rocksdb" else None,
            data=str(self._settings.data.absolute()) if self._settings.store == "rocksdb" else None,
            pid=os.getpid(),
        )
        # A courtesy to scripts: whoever does not read it gets served all the same.
        trouble = try_out(lambda: print(f"listening on {address}"))
        if trouble is not None:
            self._log.warning("standard output does not take the address", error=str(trouble))

    async def _wait(self, service: BrokerService) -> Exit:
        """Wait for a signal or for the service to fail."""
        assert service.failed is not None, "the service was started"
        signalled = asyncio.ensure_future(self._signalled.wait())
        ends: list[asyncio.Future[Any]] = [signalled, service.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if not service.failed.done():
            return Exit.OK
        self._log.error("the broker failed", exc_info=service.failed.exception())
        return Exit.FAILED

    async def _stop(self, service: BrokerService) -> None:
        """Stop in good order; a second signal ends the wait for requests under way."""
        stopping = asyncio.ensure_future(service.stop())
        hurried = asyncio.ensure_future(self._hurried.wait())
        ends: list[asyncio.Future[Any]] = [stopping, hurried]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if stopping.done():
            await stopping
            self._log.info("stopped")
        else:
            stopping.cancel()
            await asyncio.wait({stopping})
            self._log.warning("stopped in a hurry: requests under way were not answered")

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signalled.is_set():
            self._hurried.set()
            return
        self._log.info(f"{number.name}: stopping", drain_ms=self._settings.drain_ms)
        self._signalled.set()
