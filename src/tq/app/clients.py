"""The clients of an app: one for all threads of a process, one for each event loop.

Invariant: a connection is used only in the process that made it, and that of an
`AsyncClient` only in its event loop, which takes its client along when it ends.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path

from tq.app.embedded import FileDialer, MemoryDialer
from tq.client import AsyncClient, Dialer, SyncClient, TcpDialer
from tq.core.errors import ConfigError, UsageError
from tq.protocol.endpoints import FILE_SCHEME, check_url, parse_directory

URL_DEFAULT = "tq://127.0.0.1:7766"
URL_VARIABLE = "TQ_URL"
MEMORY_URL = "memory:"


class Clients:
    """Makes each client when it is first asked for.

    Raises:
        ConfigError: *url* is of no known form.  That of the environment is looked at when it is needed.
    """

    def __init__(self, url: str | None) -> None:
        # A program that goes to another directory later still means this one.
        self._url = None if url is None else resolved(_checked(url))
        self._lock = threading.Lock()
        self._dialer: Dialer | None = None
        self._sync: SyncClient | None = None
        self._async: dict[asyncio.AbstractEventLoop, AsyncClient] = {}
        # What runs at the end of each loop; kept, because a generator that nobody holds ends at once.
        self._endings: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    @property
    def url(self) -> str:
        """The broker's URL: the one given, else ``$TQ_URL``, else the default."""
        return self._url or os.environ.get(URL_VARIABLE) or URL_DEFAULT

    def dialer(self) -> Dialer:
        """Return what makes connections to the broker.

        Raises:
            ConfigError: The URL is not of a known form.
        """
        if self._dialer is None:
            with self._lock:
                if self._dialer is None:
                    self._dialer = dialer_of(self.url)
        return self._dialer

    def blocking(self) -> SyncClient:
        """Return the client for threads."""
        if self._sync is None:
            dialer = self.dialer()
            with self._lock:
                if self._sync is None:
                    self._sync = SyncClient(dialer)
        return self._sync

    def of_this_loop(self) -> AsyncClient:
        """Return the client for coroutines of the running event loop.

        Raises:
            UsageError: None runs here.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "no event loop runs here: outside coroutines use the method without the a, as enqueue"
            ) from None
        # A forked child never runs its parent's loop, so it never gets a client of its parent's here.
        return self._async.get(loop) or self._open(loop)

    def close(self) -> None:
        """Close the client of this process's threads, and the broker if it is inside this process.

        The clients of loops are closed by `aclose`, or when their loops end.
        """
        with self._lock:
            client, self._sync = self._sync, None
            dialer = self._dialer
            if dialer is None and self.url == MEMORY_URL:
                # Never used, and closed for good all the same.
                dialer = self._dialer = MemoryDialer()
            # The broker of memory: is gone for good, and its dialer says so from now on: another would be empty.
            if not isinstance(dialer, MemoryDialer):
                self._dialer = None
        if client is not None:
            client.close()
        if isinstance(dialer, MemoryDialer | FileDialer):
            dialer.close()

    async def aclose(self) -> None:
        """Close the client of this loop, then do what `close` does."""
        ending = self._endings.get(asyncio.get_running_loop())
        if ending is not None:
            await ending.aclose()
        self.close()

    def _open(self, loop: asyncio.AbstractEventLoop) -> AsyncClient:
        with self._lock:
            for closed in [other for other in self._async if other.is_closed()]:
                self._async.pop(closed)
                self._endings.pop(closed)
        client = self._async[loop] = AsyncClient(self.dialer())
        # A loop closes the asynchronous generators that are open at its end (asyncio.run calls
        # loop.shutdown_asyncgens): the one moment left to close a client that nobody else closes.
        ending = self._endings[loop] = self._closing(loop, client)
        try:
            ending.asend(None).send(None)
        except StopIteration:
            pass  # it has reached its yield, without a step of the loop
        return client

    async def _closing(self, loop: asyncio.AbstractEventLoop, client: AsyncClient) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._async.pop(loop, None)
            self._endings.pop(loop, None)
            await client.close()


def _checked(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigError(f"a broker's URL is text, as in {URL_DEFAULT}; got {url!r}")
    if url != MEMORY_URL:
        check_url(url)
    return url


def resolved(url: str) -> str:
    """Return *url* with the directory of a ``file:`` URL made absolute; what is wrong with it stays as it is."""
    try:
        directory = parse_directory(url)
    except ConfigError:
        return url
    return url if directory is None else FILE_SCHEME + os.path.abspath(directory)  # noqa: PTH100 - it takes out `..`


def dialer_of(url: str) -> Dialer:
    """Return what makes connections to the broker at *url*.

    Raises:
        ConfigError: It is of no known form.
    """
    if url == MEMORY_URL:
        return MemoryDialer()
    directory = parse_directory(resolved(url))
    return TcpDialer.of(url) if directory is None else FileDialer(Path(directory))
