"""The way of an `AsyncClient` to its broker: one connection at a time, made when it is needed.

What is tried again, and until when, is the client's business; `tq.client.sync_link` has
the same surface for threads.

Invariant: there is one current connection, and at most one series of attempts to make it.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable

import msgspec

from tq.client.async_connection import AsyncCall, AsyncConnection, AsyncWatch
from tq.client.attempts import NOT_WELCOMED, Attempts, failures_after, trouble_of
from tq.client.dialer import Dialer
from tq.core.errors import BrokerUnavailable, ConnectionLost, UsageError
from tq.core.outcome import TaskResult
from tq.protocol.messages import Hello, Welcome


async def _same(connection: AsyncConnection) -> AsyncConnection:
    if connection.is_full:
        await connection.writable()
    if not connection.is_usable:
        raise ConnectionLost("the connection of an earlier request has ended")
    return connection


class AsyncLink:
    """Keeps one connection to a broker, in one event loop.

    *on_welcome* is told of each new connection's `Welcome`.
    """

    def __init__(
        self,
        dialer: Dialer,
        hello: Hello,
        *,
        connect_timeout_s: float,
        entropy: Callable[[int], bytes],
        on_welcome: Callable[[Welcome], None],
    ) -> None:
        self._dialer = dialer
        self._hello = hello
        self._connect_timeout_s = connect_timeout_s
        self._entropy = entropy
        self._on_welcome = on_welcome
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: AsyncConnection | None = None
        self._welcome: Welcome | None = None
        # All connections that have not ended: the current one, and those that retire.
        self._live: set[AsyncConnection] = set()
        self._connecting: tuple[asyncio.Task[None], Attempts] | None = None
        # Connections in a row that ended without an answer: a broker that dies at once is not pestered.
        self._failures = 0
        self._is_closed = False

    def now(self) -> float:
        """Return the time by which deadlines are meant."""
        return asyncio.get_running_loop().time()

    @property
    def welcome(self) -> Welcome | None:
        """The broker's `Welcome`, if there is a connection."""
        return self._welcome if self._current is not None and self._current.is_usable else None

    async def ready(self, deadline: float | None) -> Welcome:
        """Return the broker's `Welcome`, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        await self._connected(deadline)
        assert self._welcome is not None
        return self._welcome

    async def begin(self, message: msgspec.Struct, deadline: float | None, after: AsyncCall | None = None) -> AsyncCall:
        """Send a request, connecting first if there is no connection; `finish` waits for the answer.

        *after* is one that was sent before: the broker gets the two in this order.

        Raises:
            BrokerUnavailable: No connection could be made in time.
            ConnectionLost: That of *after* is of no further use; nothing was sent.
            FrameTooLarge: The broker would not read it.
        """
        connection = await self._connected(deadline) if after is None else await _same(after.on)
        return AsyncCall(connection, connection.call(message, deadline))

    async def finish(self, call: AsyncCall) -> msgspec.Struct:
        """Return the reply to a request.

        Raises:
            BrokerError: The broker refused it.
            ConnectionLost: The connection ended first.
            RequestTimeout: The deadline came first.
        """
        return await call.answer

    async def watch(self, ids: Iterable[bytes], deadline: float | None) -> AsyncWatch:
        """Ask to be told when tasks end, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        connection = await self._connected(deadline)
        watch = AsyncWatch(ids, connection)
        connection.watch(watch)
        return watch

    async def news(self, watch: AsyncWatch, deadline: float | None) -> list[TaskResult]:
        """Return the results that have come, at least one unless the deadline or the last one came first.

        Raises:
            ConnectionLost: The connection ended; what is missing must be watched anew.
            BrokerError: The broker refused to tell.
        """
        if not watch.has_news:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            watch.wake = lambda: None if future.done() else future.set_result(None)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return []
        return watch.take()

    def unwatch(self, watch: AsyncWatch) -> None:
        """Stop waiting; to be called once for each watch."""
        watch.on.unwatch(watch)

    async def pause(self, after_ms: int | None, deadline: float) -> bool:
        """Wait as long as a refusal asks for, and tell whether trying again makes sense then."""
        if after_ms is None or self.now() + after_ms / 1_000 >= deadline:
            return False
        await asyncio.sleep(after_ms / 1_000)
        return True

    async def close(self) -> None:
        """Close the connection; what waits on it ends with `ConnectionLost`. Safe to call twice."""
        self._is_closed = True
        if self._connecting is not None:
            connecting, _ = self._connecting
            connecting.cancel()
            await asyncio.wait([connecting])
        for connection in list(self._live):
            connection.end(ConnectionLost("the client was closed"))
            await connection.ended

    async def _connected(self, deadline: float | None) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._bind(loop)
        while True:
            connection = self._current
            if connection is None or not connection.is_usable:
                await self._reconnected(loop, deadline)
            elif connection.is_full:
                await connection.writable()
            else:
                return connection

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None:
            raise UsageError(
                "this AsyncClient belongs to the event loop in which it was first used, and this is another; "
                "use one client in each loop, or a SyncClient"
            )
        self._loop = loop

    async def _reconnected(self, loop: asyncio.AbstractEventLoop, deadline: float | None) -> None:
        if self._is_closed:
            raise UsageError("the client is closed")
        connecting, attempts = self._connecting or self._start_connecting(loop)
        # All callers share one series of attempts, and each raises an error of its own.
        timeout_s = None if deadline is None else max(0.0, deadline - loop.time())
        done, _ = await asyncio.wait([connecting], timeout=timeout_s)
        if not done:
            raise attempts.unavailable("the time given")
        if not connecting.cancelled() and (error := connecting.exception()) is not None:
            raise copy.copy(error)

    def _start_connecting(self, loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Task[None], Attempts]:
        if self._current is not None:
            self._failures = failures_after(
                self._failures,
                has_answered=self._current.has_answered,
                is_going_away=self._current.is_going_away,
            )
            self._current = None
        self._live = {connection for connection in self._live if not connection.ended.done()}
        attempts = Attempts(loop.time(), self._connect_timeout_s, self._failures, self._entropy)
        connecting = loop.create_task(self._connect(loop, attempts))
        connecting.add_done_callback(self._stop_connecting)
        self._connecting = connecting, attempts
        return self._connecting

    def _stop_connecting(self, connecting: asyncio.Task[None]) -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is not None:
            self._failures = 0

    async def _connect(self, loop: asyncio.AbstractEventLoop, attempts: Attempts) -> None:
        while True:
            await asyncio.sleep(attempts.wait(loop.time()))
            try:
                await self._try(loop, attempts.deadline)
            except (BrokerUnavailable, ConnectionLost) as error:
                attempts.failed(trouble_of(error, self._dialer))
            else:
                return

    async def _try(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        connection = AsyncConnection(self._hello, loop)
        self._live.add(connection)
        try:
            async with asyncio.timeout_at(deadline):
                await self._dialer.connect(lambda: connection)
                welcome = await connection.opened
        except TimeoutError:
            trouble = NOT_WELCOMED if connection.is_connected else "no answer"
            raise BrokerUnavailable(trouble) from None
        finally:
            if not connection.is_connected:
                self._live.discard(connection)
            elif not connection.is_usable:
                connection.abort(ConnectionLost("it was given up before the welcome"))
        if not connection.is_usable:
            raise ConnectionLost("welcomed, and dismissed at once")
        self._welcome, self._current = welcome, connection
        self._on_welcome(welcome)
