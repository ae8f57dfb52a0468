"""The worker's connection: makes it, says who is here, and makes it again for ever.

A worker outlives its broker: it goes on running what it holds and keeps what is finished
until a connection stands again.  The log tells of each change once, not of each try, but
of each connection that is made and not welcomed.

Invariant: a connection is told nothing before it is welcomed, and each request is
answered to the listener once: with a reply, a refusal, or by `Listener.closed`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

from tq import __version__
from tq.client.dialer import Dialer
from tq.core.errors import BrokerError, BrokerUnavailable, RemoteProtocolError, SessionUnknown
from tq.core.worker import WorkerInfo
from tq.protocol.messages import (
    MAGIC,
    VERSIONS,
    Deliver,
    GoingAway,
    Goodbye,
    Held,
    Hello,
    Limits,
    Ping,
    Revoke,
    Role,
    Settled,
    Subscribe,
    Welcome,
)
from tq.protocol.reconnect import backoff
from tq.protocol.session import ClientSession, Dismissed, NotABroker, Push, Refused, Reply, SessionEvent, Welcomed
from tq.worker.identity import Identity

_log = logging.getLogger(__name__)

# A broker answers after its store did, which in a cluster may take 10 s; after this it is gone.
_ANSWER_S = 30.0
# A broker that is well says welcome within milliseconds; who watches the log should not wait for the end to learn.
_WELCOME_LATE_S = 5.0
# A connection whose other end vanished without a word is found out by asking.
_SILENCE_S = 10.0


class Listener(Protocol):
    """Who works with what the connection brings."""

    def held(self) -> list[Held]:
        """Return what the worker holds, for its `Hello`."""

    def opened(self, welcome: Welcome) -> None:
        """Start: the broker knows this worker, and hears what is sent from now on."""

    def session_lost(self) -> None:
        """Drop what is held: the broker no longer knows this worker, and its leases have ended."""

    def delivered(self, deliver: Deliver) -> None:
        """Take tasks in."""

    def revoked(self, revoke: Revoke) -> None:
        """Stop tasks."""

    def settled(self, correlation: int, settled: Settled) -> None:
        """Note that the outcomes sent as request *correlation* are durable, but for some."""

    def refused(self, correlation: int, error: BrokerError) -> None:
        """Note that the outcomes sent as request *correlation* were not taken."""

    def closed(self) -> None:
        """Note that what was sent and is not answered will not be."""


class Link:
    """One worker's connection to its broker, renewed as often as it takes.

    *draw* returns a random number, 0 <= draw < 1, to spread the tries of many workers.
    """

    def __init__(
        self,
        dialer: Dialer,
        identity: Identity,
        listener: Listener,
        info: WorkerInfo,
        subscription: Subscribe,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._dialer = dialer
        self._identity = identity
        self._listener = listener
        self._info = info
        self._subscription = subscription
        self._clock = clock
        self._draw = draw
        self._wire: _Wire | None = None
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._fatal: BrokerError | None = None
        self._is_down = False
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._wire is not None and self._wire.session.is_open

    @property
    def limits(self) -> Limits:
        """What the broker accepts, as it said when the connection opened."""
        assert self._wire is not None
        assert self._wire.session.welcome is not None
        return self._wire.session.welcome.limits

    async def run(self) -> None:
        """Keep a connection, until cancelled or after `leave`.

        Raises:
            BrokerError: The broker refuses the queues: trying again is of no use.
        """
        failures = 0
        try:
            while True:
                was_open = await self._connect()
                if self._fatal is not None:
                    raise self._fatal
                if self._is_over:
                    return
                failures = 1 if was_open else failures + 1
                await asyncio.sleep(backoff(failures, self._draw()))
        finally:
            self._is_over = True

    def notify(self, message: msgspec.Struct) -> None:
        """Send a message that gets no answer; on a connection that is about to end it goes nowhere."""
        # What is heard may have been followed, in the same read, by the end of the conversation.
        if self._wire is not None and self._wire.session.is_open:
            self._wire.write(self._wire.session.notify(message))

    def request(self, message: msgspec.Struct) -> int:
        """Send outcomes; the listener hears of the answer under the number returned.  The link is open.

        Raises:
            FrameTooLarge: The broker would not read it.
            InvalidArgument: It has no encoding.
        """
        assert self._wire is not None
        correlation, frame = self._wire.session.request(message, self._clock() + _ANSWER_S)
        self._wire.write(frame)
        return correlation

    async def leave(self) -> None:
        """Say goodbye, if there is someone to hear it, and make no connection after this one."""
        self._is_over = True
        await self.ask(Goodbye())

    async def ask(self, message: Ping | Goodbye) -> bool:
        """Return whether the broker answered; False when the connection ends before, or is not open."""
        if not self.is_open:
            return False
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[self.request(message)] = answer
        return await answer

    def tick(self) -> None:
        """End a connection that does not answer; ask one that has been silent."""
        wire, now = self._wire, self._clock()
        if wire is None:
            return
        session = wire.session
        if session.expired(now) or (not session.is_open and now > wire.heard_at + _ANSWER_S):
            self._say_down("the broker does not answer")
            wire.abort()
        elif not (session.is_open or wire.is_late) and now > wire.heard_at + _WELCOME_LATE_S:
            wire.is_late = True
            text = (
                "connected, and waiting for the broker's welcome since %g s: it is suspended or overloaded, or what "
                "listens there is no tq-broker; trying anew after %g s"
            )
            _log.warning(text, _WELCOME_LATE_S, _ANSWER_S)
        elif session.is_open and session.pending == 0 and now > wire.heard_at + _SILENCE_S:
            self.request(Ping())

    async def _connect(self) -> bool:
        """Make one connection and stay until it ends; return whether it was ever open."""
        wire = _Wire(self._hello(), self._clock, made=self._made, heard=self._heard, lost=self._lost)
        try:
            await self._dialer.connect(lambda: wire)
            await wire.ended
        except BrokerUnavailable as error:
            self._say_down(str(error))
        finally:
            wire.abort()
        return wire.was_open

    def _hello(self) -> Hello:
        session, secret = self._identity.credentials
        return Hello(
            MAGIC,
            VERSIONS.first,
            Role.WORKER,
            f"tq-worker/{__version__}",
            session,
            secret,
            self._info,
            self._listener.held(),
            VERSIONS.last,
        )

    def _made(self, wire: "_Wire") -> None:
        self._wire = wire
        wire.write(wire.session.start())

    def _heard(self, wire: "_Wire", event: SessionEvent) -> None:
        match event:
            case Push(Deliver() as deliver):
                self._listener.delivered(deliver)
            case Reply(correlation, Settled() as settled):
                self._listener.settled(correlation, settled)
            case Push(Revoke() as revoke):
                self._listener.revoked(revoke)
            case Reply(correlation, _):
                self._answered(correlation)
            case Refused(correlation, error):
                self._refused(wire, correlation, error)
            case Welcomed(welcome):
                self._welcomed(wire, welcome)
            case Push(GoingAway(reason)):
                _log.info("the broker is about to stop (%s)", reason or "no reason given")
            case Push():
                pass
            case Dismissed(error):
                self._dismissed(wire, error)

    def _welcomed(self, wire: "_Wire", welcome: Welcome) -> None:
        wire.was_open = True
        if not wire.session.is_open:
            return  # welcomed and dismissed in one read
        self._is_down = False
        _log.info("connected to broker %s as worker %s", welcome.server, self._info.name)
        wire.subscribing = self.request(self._subscription)
        self._listener.opened(welcome)

    def _answered(self, correlation: int) -> None:
        answer = self._asked.pop(correlation, None)
        if answer is not None and not answer.done():
            answer.set_result(True)

    def _refused(self, wire: "_Wire", correlation: int, error: BrokerError) -> None:
        if correlation == wire.subscribing:
            if not error.retryable:
                self._fatal = error
            self._say_down(f"the broker refuses the queues: {error}")
            wire.abort()
        elif (answer := self._asked.pop(correlation, None)) is not None:
            if not answer.done():
                answer.set_result(False)
        else:
            self._listener.refused(correlation, error)

    def _dismissed(self, wire: "_Wire", error: BrokerError | RemoteProtocolError) -> None:
        if isinstance(error, SessionUnknown):
            _log.info("the broker does not know this worker any more: it registers anew")
            self._identity.renew()
            self._listener.session_lost()
        elif isinstance(error, NotABroker):
            self._say_down(str(error))
        else:
            self._say_down(f"the broker closed the connection: {error}")
        wire.abort()

    def _lost(self, wire: "_Wire", error: Exception | None) -> None:
        wire.session.lost()
        self._wire = None
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_result(False)
        self._listener.closed()
        if wire.was_open and not self._is_over:
            self._say_down(f"the connection ended{f': {error}' if error else ''}")

    def _say_down(self, text: str) -> None:
        if not self._is_down:
            self._is_down = True
            _log.warning("%s; trying again until it works", text)


class _Wire(asyncio.Protocol):
    """One connection, from its making to its end."""

    def __init__(
        self,
        hello: Hello,
        clock: Callable[[], float],
        *,
        made: Callable[["_Wire"], None],
        heard: Callable[["_Wire", SessionEvent], None],
        lost: Callable[["_Wire", Exception | None], None],
    ) -> None:
        self.session = ClientSession(hello)
        self.heard_at = clock()
        self.was_open = False
        self.is_late = False
        self.subscribing = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._made = made
        self._heard = heard
        self._lost = lost
        self._clock = clock
        self._transport: asyncio.Transport | None = None

    def write(self, frame: bytes | bytearray) -> None:
        assert self._transport is not None
        self._transport.write(frame)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._clock()
        for event in self.session.receive(data):
            self._heard(self, event)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost(self, error)
        if not self.ended.done():
            self.ended.set_result(None)
