"""The client's side of one connection, without I/O: correlation, replies, pushes, deadlines.

Clients, the worker's link and its keeper are thin shells over it:

    session = ClientSession(Hello(MAGIC, 1, Role.CLIENT, agent="..."))
    send(session.start())
    for event in session.receive(data): ...      # Welcomed, Reply, Refused, Push, Dismissed

Invariant: a correlation id given out by `request` comes back exactly once: in a `Reply`
or a `Refused`, from `expired`, or from `lost`.
"""

from typing import NamedTuple

import msgspec

from tq.core.errors import (
    BrokerError,
    FrameTooLarge,
    InvalidArgument,
    LocalProtocolError,
    RemoteProtocolError,
    UnsupportedVersion,
    broker_error,
)
from tq.core.limits import FRAME_BYTES_MAX
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import CORRELATION_MAX, HEADER_BYTES, Frame, FrameReader
from tq.protocol.messages import MESSAGES, TYPE_OF, Error, Hello, Type, Welcome
from tq.protocol.states import NOTICES, PUSHED_TO, SENT_BY, TRANSITIONS, ConnectionState, Event

_HELLO_CORRELATION = 1


class Welcomed(NamedTuple):
    """The connection is open."""

    welcome: Welcome


class Reply(NamedTuple):
    """The answer to the request *correlation*."""

    correlation: int
    message: msgspec.Struct


class Refused(NamedTuple):
    """The broker refused the request *correlation*."""

    correlation: int
    error: BrokerError


class Push(NamedTuple):
    """A message that nobody asked for."""

    message: msgspec.Struct


class Dismissed(NamedTuple):
    """The conversation is over: the broker ended it or broke a rule. Close, then ask `lost`.

    It is the last event of a connection.
    """

    error: BrokerError | RemoteProtocolError


SessionEvent = Welcomed | Reply | Refused | Push | Dismissed


class NotABroker(RemoteProtocolError):
    """What came instead of a welcome is not of this protocol: another service has this address."""


_NO_BROKER = "what answers there is no tq-broker"


class ClientSession:
    """One connection as the peer of the broker sees it.

    Deadlines are seconds of the caller's own steady clock, or None.  ``welcome`` is
    known once the connection is open.
    """

    def __init__(self, hello: Hello, body_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.hello = hello
        self.state = ConnectionState.AWAITING_HELLO
        self.welcome: Welcome | None = None
        self._reader = FrameReader(body_bytes_max)
        self._sends = SENT_BY[hello.role]
        self._pushes = PUSHED_TO[hello.role]
        self._last = 0
        self._pending: dict[int, _Pending] = {}
        # Expired requests whose reply may still come: it is dropped, and until then its id is not given out.
        self._expired: dict[int, Type] = {}

    @property
    def is_open(self) -> bool:
        """Whether requests may be sent."""
        return self.state is ConnectionState.OPEN

    @property
    def pending(self) -> int:
        """How many requests wait for an answer."""
        return len(self._pending)

    def start(self) -> bytearray:
        """Return the bytes of the `Hello`; its answer is the event `Welcomed` or `Dismissed`.

        Raises:
            LocalProtocolError: The session has started already.
        """
        if self.state is not ConnectionState.AWAITING_HELLO:
            raise LocalProtocolError(f"a hello on a connection that is {self.state.value}")
        self._move(Event.HELLO)
        self._last = _HELLO_CORRELATION
        return encode_message(self.hello, _HELLO_CORRELATION)

    def request(self, message: msgspec.Struct, deadline: float | None) -> tuple[int, bytearray]:
        """Return the correlation id of a new request, and its bytes.

        Raises:
            FrameTooLarge: The broker would not read so long a frame; nothing is pending.
            InvalidArgument: A field of the message has no encoding; nothing is pending.
            LocalProtocolError: The connection is not open, or this is no request of this role.
        """
        number = self._sendable(message)
        if number in NOTICES:
            raise LocalProtocolError(f"{number.name} is a notice: nothing answers it")
        correlation = self._next_correlation()
        frame = self._encode(message, correlation)
        self._pending[correlation] = _Pending(number, deadline)
        self._last = correlation
        return correlation, frame

    def notify(self, message: msgspec.Struct) -> bytearray:
        """Return the bytes of a message that gets no answer.

        Raises:
            FrameTooLarge: The broker would not read so long a frame.
            InvalidArgument: A field of the message has no encoding.
            LocalProtocolError: The connection is not open, or this is no notice of this role.
        """
        number = self._sendable(message)
        if number not in NOTICES:
            raise LocalProtocolError(f"{number.name} is a request: its answer must be waited for")
        return self._encode(message, 0)

    def receive(self, data: bytes | bytearray | memoryview) -> list[SessionEvent]:
        """Return what *data* brought, in order; nothing after a `Dismissed`."""
        events: list[SessionEvent] = []
        if self._is_over():
            return events
        # A violation is an event, not an exception: what came before it in the same read must not be lost.
        try:
            for frame in self._reader.feed(data):
                self._take(frame, events)
                if self._is_over():
                    break
        except RemoteProtocolError as violation:
            self._move(Event.DISMISSAL)
            is_broker = self.welcome is not None
            events.append(Dismissed(violation if is_broker else NotABroker(f"{_NO_BROKER} ({violation})")))
        return events

    def expired(self, now: float) -> list[int]:
        """Return the requests whose deadline has come, and forget them: a later answer is dropped."""
        due = [
            correlation
            for correlation, pending in self._pending.items()
            if pending.deadline is not None and pending.deadline <= now
        ]
        for correlation in due:
            self._expired[correlation] = self._pending.pop(correlation).number
        return due

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a pending request, if any has one."""
        return min((p.deadline for p in self._pending.values() if p.deadline is not None), default=None)

    def lost(self) -> list[int]:
        """Note that the transport has ended; return the requests that will get no answer."""
        self._move(Event.END)
        pending = list(self._pending)
        self._pending.clear()
        self._expired.clear()
        return pending

    def _sendable(self, message: msgspec.Struct) -> Type:
        if self.state is not ConnectionState.OPEN:
            raise LocalProtocolError(f"{type(message).__name__} on a connection that is {self.state.value}")
        number = TYPE_OF[type(message)]
        if number not in self._sends:
            raise LocalProtocolError(f"{number.name} is not for a {self.hello.role.value} to send")
        return number

    def _encode(self, message: msgspec.Struct, correlation: int) -> bytearray:
        try:
            frame = encode_message(message, correlation)
        except UnicodeEncodeError as error:
            raise InvalidArgument(
                f"{type(message).__name__}: text must be what UTF-8 can encode; got {error.object[:100]!r}"
            ) from None
        except (OverflowError, TypeError, ValueError) as error:
            # Numbers beyond 64 bits, and types that the message does not have there.
            raise InvalidArgument(f"{type(message).__name__} cannot be encoded: {error}") from None
        assert self.welcome is not None
        limit = self.welcome.limits.frame_bytes_max
        if len(frame) - HEADER_BYTES > limit:
            raise FrameTooLarge(
                f"{type(message).__name__} of {len(frame) - HEADER_BYTES} bytes; the broker reads {limit}"
            )
        return frame

    def _next_correlation(self) -> int:
        correlation = self._last
        while True:
            correlation = correlation % CORRELATION_MAX + 1
            if correlation not in self._pending and correlation not in self._expired:
                return correlation

    def _take(self, frame: Frame, events: list[SessionEvent]) -> None:
        if self.state is ConnectionState.AWAITING_HELLO:
            raise RemoteProtocolError(f"message number {frame.kind} before the hello")
        if self.state is ConnectionState.GREETING:
            self._take_welcome(frame, events)
        elif frame.correlation == 0:
            self._take_push(frame, events)
        else:
            self._take_reply(frame, events)

    def _take_welcome(self, frame: Frame, events: list[SessionEvent]) -> None:
        kind, correlation, body = frame
        if kind == Type.ERROR and correlation in {0, _HELLO_CORRELATION}:
            events.append(self._dismissed(decode_message(kind, body)))
            return
        if kind != Type.WELCOME or correlation != _HELLO_CORRELATION:
            raise RemoteProtocolError(f"message number {kind} with correlation id {correlation} for a welcome")
        welcome = decode_message(kind, body)
        assert isinstance(welcome, Welcome)
        offered = self.hello.offered
        if not offered.first <= welcome.version <= offered.last:
            self._move(Event.DISMISSAL)
            text = f"the broker speaks version {welcome.version}; this side speaks {offered}"
            events.append(Dismissed(UnsupportedVersion(text)))
            return
        self.welcome = welcome
        self._move(Event.WELCOME)
        events.append(Welcomed(welcome))

    def _take_push(self, frame: Frame, events: list[SessionEvent]) -> None:
        if frame.kind == Type.ERROR:
            events.append(self._dismissed(decode_message(frame.kind, frame.body)))
        elif frame.kind in self._pushes:
            events.append(Push(decode_message(frame.kind, frame.body)))
        else:
            raise RemoteProtocolError(
                f"message number {frame.kind} was pushed to a {self.hello.role.value}, which does not get it"
            )

    def _take_reply(self, frame: Frame, events: list[SessionEvent]) -> None:
        kind, correlation, body = frame
        pending = self._pending.get(correlation)
        number = self._expired.get(correlation) if pending is None else pending.number
        if number is None:
            raise RemoteProtocolError(f"message number {kind} answers request {correlation}, which was not sent")
        message = decode_message(kind, body)
        if type(message) is not MESSAGES[number].reply and not isinstance(message, Error):
            raise RemoteProtocolError(f"{type(message).__name__} answers {number.name}")
        if pending is None:
            del self._expired[correlation]
        else:
            del self._pending[correlation]
        if isinstance(message, Error):
            if pending is not None:
                events.append(Refused(correlation, _as_error(message)))
            if message.closes:
                events.append(self._dismissed(message))
        elif pending is not None:
            events.append(Reply(correlation, message))

    def _dismissed(self, message: msgspec.Struct) -> Dismissed:
        assert isinstance(message, Error)
        self._move(Event.DISMISSAL)
        return Dismissed(_as_error(message))

    def _is_over(self) -> bool:
        return self.state is ConnectionState.CLOSING or self.state is ConnectionState.CLOSED

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


class _Pending(NamedTuple):
    """A request that waits for its answer."""

    number: Type
    deadline: float | None


def _as_error(message: Error) -> BrokerError:
    return broker_error(message.code, message.text, message.retry_after_ms)
