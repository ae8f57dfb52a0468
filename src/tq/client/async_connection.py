"""One connection of an `AsyncLink`: the shell between a transport and a `ClientSession`.

Bytes go in and out, answers go to futures.  Invariant: everything that waits on it is
told when it ends.
"""

import asyncio
import copy
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import msgspec

from tq.client.attempts import as_loss
from tq.client.watches import Watch, Watches
from tq.core.errors import BatchTooLarge, BrokerError, ConnectionLost, RequestTimeout
from tq.core.limits import REQUEST_IDS_MAX
from tq.protocol.messages import GoingAway, Hello, Results, Unwait, Wait, Waited, Welcome
from tq.protocol.session import ClientSession, Dismissed, Push, Refused, Reply, SessionEvent, Welcomed


class AsyncCall(NamedTuple):
    """A request on its way, and the connection it is on."""

    on: "AsyncConnection"
    answer: asyncio.Future[msgspec.Struct]


class AsyncWatch(Watch):
    """A watch, and the connection it is on."""

    def __init__(self, ids: Iterable[bytes], on: "AsyncConnection") -> None:
        super().__init__(ids)
        self.on = on


class AsyncConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, hello: Hello, loop: asyncio.AbstractEventLoop) -> None:
        self.is_connected = False
        self.is_going_away = False
        self.has_answered = False
        self.opened: asyncio.Future[Welcome] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._session = ClientSession(hello)
        self._loop = loop
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
        return self._session.is_open and not self.is_going_away and self._reason is None

    @property
    def is_full(self) -> bool:
        """Whether the transport holds enough, so that new requests wait for `writable`."""
        return self._writable is not None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        # A transport of uvloop is one by its methods, not by its class.
        self._transport = cast(asyncio.Transport, transport)
        self.is_connected = True
        self._transport.write(self._session.start())

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
        reason = self._reason
        self._session.lost()
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls.values():
            fail(call, copy.copy(reason))
        self._calls.clear()
        self._watches.all_failed(reason)
        fail(self.opened, copy.copy(reason))
        self.resume_writing()
        self.ended.set_result(None)

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
        for start in range(0, len(idle) if self.is_usable else 0, REQUEST_IDS_MAX):
            self._write(self._session.notify(Unwait(idle[start : start + REQUEST_IDS_MAX])))

    def end(self, reason: Exception) -> None:
        """Close the connection for *reason*, once what is written has gone out."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception) -> None:
        """Drop the connection for *reason*, at once."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

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
                    self._not_told(self._asked.pop(correlation), error)
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
            self._watches.all_failed(ConnectionLost(f"the broker is going away: {message.reason}"))

    def _close_if_idle(self) -> None:
        if not self._calls and not self._asked:
            self.end(ConnectionLost("the broker is going away"))

    def _ask(self) -> None:
        unasked, self._unasked = self._unasked, []
        if not self.is_usable:
            return
        for start in range(0, len(unasked), REQUEST_IDS_MAX):
            self._ask_for(unasked[start : start + REQUEST_IDS_MAX])

    def _ask_for(self, ids: list[bytes]) -> None:
        correlation, data = self._session.request(Wait(ids), None)
        self._asked[correlation] = ids
        self._write(data)

    def _not_told(self, ids: list[bytes], refusal: BrokerError) -> None:
        if isinstance(refusal, BatchTooLarge) and len(ids) > 1 and self.is_usable:
            # The results that are there do not fit into one frame together.
            half = len(ids) // 2
            self._ask_for(ids[:half])
            self._ask_for(ids[half:])
        else:
            self._watches.failed(ids, refusal)

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


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """End *future* with *error*, unless it has ended."""
    if not future.done():
        future.set_exception(error)
        # A caller that has gone away meanwhile is no reason for a complaint by asyncio.
        future.exception()
