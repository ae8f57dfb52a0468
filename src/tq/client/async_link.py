"""The way of an `AsyncClient` to its broker: one connection at a time, made when it is needed.

`AsyncConnection` is the shell of one connection: bytes between the transport and a
`ClientSession`, answers to futures.  `AsyncLink` makes the next one when one is lost.
What is tried again, and until when, is the client's business; `tq.client.sync_link` has
the same surface for threads.

Invariant: everything that waits on a connection is told when it ends.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tq.client.attempts import WAIT_IDS_MAX, Attempts, as_loss, failures_after
from tq.client.dialer import Dialer
from tq.client.watches import Watch, Watches
from tq.core.errors import BrokerUnavailable, ConnectionLost, RequestTimeout, UsageError
from tq.core.outcome import TaskResult
from tq.protocol.messages import GoingAway, Hello, Results, Unwait, Wait, Waited, Welcome
from tq.protocol.session import ClientSession, Dismissed, Push, Refused, Reply, SessionEvent, Welcomed


AsyncCall = asyncio.Future[msgspec.Struct]
"""A request on its way."""


class AsyncConnection(asyncio.Protocol):
    """One connection; *on_end* is called when it is of no further use for new requests."""

    def __init__(
        self, hello: Hello, loop: asyncio.AbstractEventLoop, on_end: Callable[["AsyncConnection"], None]
    ) -> None:
        self.is_connected = False
        self.is_going_away = False
        self.has_answered = False
        self.opened: asyncio.Future[Welcome] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._session = ClientSession(hello)
        self._loop = loop
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, asyncio.Future[msgspec.Struct]] = {}
        self._watches = Watches()
        # Ids to ask for at the end of this turn of the loop, and those asked for in requests that are open.
        self._unasked: list[bytes] = []
        self._asked: dict[int, list[bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reason: Exception | None = None
        self._writable: asyncio.Future[None] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether new requests may be made here."""
        return self._session.is_open and not self.is_going_away

    @property
    def is_full(self) -> bool:
        """Whether the transport holds enough, so that new requests wait for `writable`."""
        return self._writable is not None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_connected = True
        transport.write(self._session.start())

    def data_received(self, data: bytes) -> None:
        """Take what the broker says."""
        for event in self._session.receive(data):
            self._take(event)
        if self.is_going_away:
            self._close_if_idle()

    def pause_writing(self) -> None:
        """Let new requests wait: the transport holds enough."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let new requests go on."""
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, error: Exception | None) -> None:
        """Tell all that wait."""
        if self._reason is None:
            self._reason = ConnectionLost(f"the connection to the broker ended: {error or 'it was closed there'}")
        self._session.lost()
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls.values():
            fail(call, self._why())
        self._calls.clear()
        self._watches.all_failed(self._why)
        fail(self.opened, self._why())
        self.resume_writing()
        self.ended.set_result(None)
        self._on_end(self)

    # What the link calls.

    async def writable(self) -> None:
        """Wait until the transport takes more."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    def call(self, message: msgspec.Struct, deadline: float | None) -> asyncio.Future[msgspec.Struct]:
        """Send a request; the future gets its reply, or the error it ends with."""
        correlation, data = self._session.request(message, deadline)
        future: asyncio.Future[msgspec.Struct] = self._loop.create_future()
        self._calls[correlation] = future
        self._write(data)
        self._expect(deadline)
        return future

    def watch(self, watch: Watch) -> None:
        """Take *watch* in; all that are new in this turn of the loop are asked for in one request."""
        fresh = self._watches.add(watch)
        if fresh and not self._unasked:
            self._loop.call_soon(self._ask)
        self._unasked += fresh

    def unwatch(self, watch: Watch) -> None:
        """Forget *watch*."""
        idle = self._watches.remove(watch)
        for start in range(0, len(idle) if self.is_usable else 0, WAIT_IDS_MAX):
            self._write(self._session.notify(Unwait(idle[start : start + WAIT_IDS_MAX])))

    def end(self, reason: Exception) -> None:
        """Close the connection for *reason*, once what is written has gone out."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.close()
        self._on_end(self)

    def abort(self, reason: Exception) -> None:
        """Drop the connection for *reason*, at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()
        self._on_end(self)

    def _write(self, data: bytearray) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _take(self, event: SessionEvent) -> None:
        match event:
            case Reply(correlation, message):
                self.has_answered = True
                if isinstance(message, Waited):
                    self._asked.pop(correlation, None)
                    self._watches.ended(message.ended)
                    self._watches.unknown(message.unknown)
                elif not (call := self._calls.pop(correlation)).done():
                    call.set_result(message)
            case Refused(correlation, error):
                self.has_answered = True
                if correlation in self._asked:
                    self._watches.failed(self._asked.pop(correlation), lambda: copy.copy(error))
                else:
                    fail(self._calls.pop(correlation), error)
            case Push(message):
                self._hear(message)
            case Welcomed(welcome):
                if not self.opened.done():
                    self.opened.set_result(welcome)
            case Dismissed(error):
                self.abort(as_loss(error))

    def _hear(self, message: msgspec.Struct) -> None:
        if isinstance(message, Results):
            self._watches.ended(message.results)
        elif isinstance(message, GoingAway):
            # The requests that are open still get their answers here; all else moves to the next connection.
            self.is_going_away = True
            self._watches.all_failed(lambda: ConnectionLost(f"the broker is going away: {message.reason}"))
            self._on_end(self)

    def _close_if_idle(self) -> None:
        if not self._calls and not self._asked:
            self.end(ConnectionLost("the broker is going away"))

    def _ask(self) -> None:
        unasked, self._unasked = self._unasked, []
        if not self.is_usable:
            return
        for start in range(0, len(unasked), WAIT_IDS_MAX):
            ids = unasked[start : start + WAIT_IDS_MAX]
            correlation, data = self._session.request(Wait(ids), None)
            self._asked[correlation] = ids
            self._write(data)

    def _expect(self, deadline: float | None) -> None:
        # One timer for all requests, left running when the one it was set for is answered in time.
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        for correlation in self._session.expired(self._loop.time()):
            fail(self._calls.pop(correlation), RequestTimeout("the broker has not answered in time"))
        self._expect(self._session.next_deadline())

    def _why(self) -> Exception:
        assert self._reason is not None
        return copy.copy(self._reason)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """End *future* with *error*, unless it has ended."""
    if not future.done():
        future.set_exception(error)
        # A caller that has gone away meanwhile is no reason for a complaint by asyncio.
        future.exception()


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
        self._connecting: asyncio.Task[None] | None = None
        self._attempts: Attempts | None = None
        # Connections in a row that ended without an answer: a broker that dies at once is not pestered.
        self._failures = 0
        self._is_closed = False

    def now(self) -> float:
        """Return the time by which deadlines are meant."""
        return asyncio.get_running_loop().time()

    async def ready(self, deadline: float | None) -> Welcome:
        """Return the broker's `Welcome`, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        await self._connected(deadline)
        assert self._welcome is not None
        return self._welcome

    async def begin(self, message: msgspec.Struct, deadline: float | None) -> asyncio.Future[msgspec.Struct]:
        """Send a request, connecting first if there is no connection; `finish` waits for the answer.

        Raises:
            BrokerUnavailable: No connection could be made in time.
            FrameTooLarge: The broker would not read it.
        """
        connection = await self._connected(deadline)
        return connection.call(message, deadline)

    async def finish(self, call: asyncio.Future[msgspec.Struct]) -> msgspec.Struct:
        """Return the reply to a request.

        Raises:
            BrokerError: The broker refused it.
            ConnectionLost: The connection ended first.
            RequestTimeout: The deadline came first.
        """
        return await call

    async def watch(self, ids: Iterable[bytes], deadline: float | None) -> Watch:
        """Ask to be told when tasks end, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        connection = await self._connected(deadline)
        watch = Watch(ids)
        connection.watch(watch)
        return watch

    async def news(self, watch: Watch, deadline: float | None) -> list[TaskResult]:
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

    def unwatch(self, watch: Watch) -> None:
        """Stop waiting; to be called once for each watch."""
        for connection in self._live:
            connection.unwatch(watch)

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
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for connection in list(self._live):
            connection.end(ConnectionLost("the client was closed"))
            await connection.ended

    async def _connected(self, deadline: float | None) -> AsyncConnection:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._bind(loop)
        while True:
            connection = self._current
            if self._is_closed:
                raise UsageError("the client is closed")
            if connection is None:
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
        if self._connecting is None:
            self._attempts = Attempts(loop.time(), self._connect_timeout_s, self._failures, self._entropy)
            self._connecting = loop.create_task(self._connect(loop, self._attempts))
            self._connecting.add_done_callback(self._stop_connecting)
        connecting, attempts = self._connecting, self._attempts
        assert attempts is not None
        # All callers share one series of attempts, and each raises an error of its own.
        timeout_s = None if deadline is None else max(0.0, deadline - loop.time())
        done, _ = await asyncio.wait([connecting], timeout=timeout_s)
        if not done:
            raise attempts.unavailable("the time given")
        if not connecting.cancelled() and (error := connecting.exception()) is not None:
            raise copy.copy(error)

    def _stop_connecting(self, connecting: asyncio.Task[None]) -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is not None:
            self._failures = 0

    async def _connect(self, loop: asyncio.AbstractEventLoop, attempts: Attempts) -> None:
        while self._current is None:
            await asyncio.sleep(attempts.wait(loop.time()))
            try:
                await self._try(loop, attempts.deadline)
            except (BrokerUnavailable, ConnectionLost) as error:
                attempts.failed(str(error))

    async def _try(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        connection = AsyncConnection(self._hello, loop, self._drop)
        self._live.add(connection)
        try:
            async with asyncio.timeout_at(deadline):
                await self._dialer.connect(lambda: connection)
                welcome = await connection.opened
        except TimeoutError:
            trouble = "connected, but not welcomed: is it a tq-broker?" if connection.is_connected else "no answer"
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

    def _drop(self, connection: AsyncConnection) -> None:
        if connection is self._current:
            self._current = None
            self._failures = failures_after(
                self._failures, has_answered=connection.has_answered, is_going_away=connection.is_going_away
            )
        if connection.ended.done():
            self._live.discard(connection)
