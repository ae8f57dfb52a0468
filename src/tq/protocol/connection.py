"""The broker's side of one connection, without I/O: which message may come when, and what answers it.

    conn = ServerConnection()
    for frame in conn.receive(data):        # cheap: cuts, decodes nothing
        request = conn.decode(frame)        # when its turn comes
        transport.write(conn.reply(request.correlation, answer))

Both `receive` and `decode` raise `RemoteProtocolError` when the peer breaks a rule.  Then
``conn.last_words`` holds the `Error` to write before closing.

Invariant: a request gets one reply, of the kind that `MESSAGES` names, or one refusal.
"""

from typing import NamedTuple

import msgspec

from tq.core.errors import (
    CODES,
    BatchTooLarge,
    BrokerError,
    FrameTooLarge,
    LocalProtocolError,
    ProtocolViolation,
    RemoteProtocolError,
    UnsupportedVersion,
)
from tq.core.limits import FRAME_BYTES_MAX
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import HEADER_BYTES, Frame, FrameReader, FrameTooLong
from tq.protocol.messages import MAGIC, MESSAGES, TYPE_OF, VERSIONS, Error, Hello, Role, Type, Versions, Welcome
from tq.protocol.states import NOTICES, PUSHED_TO, SENT_BY, TRANSITIONS, ConnectionState, Event

_HELLO_ONLY = frozenset({Type.HELLO})
_NOTHING: frozenset[Type] = frozenset()


class Request(NamedTuple):
    """One decoded message of the peer: a request, or a notice when ``correlation`` is 0.

    ``size`` is the length of its frame, by which backpressure counts.
    """

    kind: Type
    correlation: int
    message: msgspec.Struct
    size: int


class VersionUnknown(RemoteProtocolError):
    """The peer speaks a version that this side does not."""


class ServerConnection:
    """One connection as the broker sees it.

    ``hello``, ``role`` and the ``version`` that both sides speak are known once the first
    message is decoded; ``last_words`` is empty until the broker ends the conversation.
    """

    def __init__(self, body_bytes_max: int = FRAME_BYTES_MAX, versions: Versions = VERSIONS) -> None:
        self.state = ConnectionState.AWAITING_HELLO
        self.hello: Hello | None = None
        self.role: Role | None = None
        self.version = 0
        self.last_words = b""
        self._versions = versions
        self._reader = FrameReader(body_bytes_max)
        self._accepted = _HELLO_ONLY
        self._unanswered: dict[int, Type] = {}

    @property
    def unanswered(self) -> int:
        """How many requests have been decoded and not answered yet."""
        return len(self._unanswered)

    @property
    def pending_bytes(self) -> int:
        """How much of an incomplete frame is held."""
        return self._reader.pending_bytes

    def receive(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Return the frames that *data* completes, for `decode`; none once the connection is closing.

        Raises:
            RemoteProtocolError: A frame is too long or has unknown flags; see ``last_words``.
        """
        if self.state is ConnectionState.CLOSING or self.state is ConnectionState.CLOSED:
            return []
        try:
            return self._reader.feed(data)
        except RemoteProtocolError as violation:
            self._dismiss_for(violation)
            raise

    def decode(self, frame: Frame) -> Request:
        """Return the message in *frame*, checked against the state, the role and the correlation rules.

        Raises:
            RemoteProtocolError: The peer may not send this, or not now; see ``last_words``.
            LocalProtocolError: The connection is closing: the frames that were left are void.
        """
        if self.state is ConnectionState.CLOSING or self.state is ConnectionState.CLOSED:
            raise LocalProtocolError(f"the connection is {self.state.value}: a frame left over from it is void")
        try:
            return self._decode(frame)
        except RemoteProtocolError as violation:
            self._dismiss_for(violation)
            raise

    def _decode(self, frame: Frame) -> Request:
        kind, correlation, body = frame
        if kind not in self._accepted:
            raise RemoteProtocolError(self._not_accepted(kind))
        number = Type(kind)
        if (correlation == 0) is not (number in NOTICES):
            rule = "a notice has correlation id 0" if correlation else "a request has a correlation id from 1"
            raise RemoteProtocolError(f"{number.name} with correlation id {correlation}: {rule}")
        if correlation in self._unanswered:
            raise RemoteProtocolError(
                f"{number.name} with correlation id {correlation}, which "
                f"{self._unanswered[correlation].name} has already and waits for an answer"
            )
        message = decode_message(kind, body)
        if correlation:
            self._unanswered[correlation] = number
        if isinstance(message, Hello):
            self._greet(message)
        return Request(number, correlation, message, HEADER_BYTES + len(body))

    def _greet(self, hello: Hello) -> None:
        if hello.magic != MAGIC:
            raise RemoteProtocolError(f"the first message has magic {hello.magic[:8]!r}, not {MAGIC!r}")
        self.version = self._versions.shared_with(hello.offered) or 0
        if not self.version:
            raise VersionUnknown(f"the peer speaks {hello.offered}; this broker speaks {self._versions}")
        if hello.role is not Role.CLIENT and (hello.session is None or hello.secret is None):
            raise RemoteProtocolError(f"a {hello.role.value} says hello without its session and secret")
        if hello.role is Role.WORKER and hello.worker is None:
            raise RemoteProtocolError("a worker says hello without saying what it is")
        self.hello, self.role = hello, hello.role
        self._move(Event.HELLO)
        self._accepted = _NOTHING

    def _not_accepted(self, kind: int) -> str:
        name = Type(kind).name if kind in MESSAGES else f"message number {kind}"
        match self.state:
            case ConnectionState.AWAITING_HELLO:
                return f"{name} before HELLO"
            case ConnectionState.GREETING:
                return f"{name} before the WELCOME"
            case _:
                return f"{name} from a {self.role.value if self.role else 'peer'}, which may not send it"

    def reply(self, correlation: int, message: msgspec.Struct) -> bytearray:
        """Return the bytes of the answer to a request; empty when the connection no longer sends.

        Raises:
            BatchTooLarge: The answer is longer than peers read; the request may still be refused.
            LocalProtocolError: Nothing waits under *correlation*, or for an answer of another kind.
        """
        if self._is_silent():
            return bytearray()
        request = self._unanswered.get(correlation)
        if request is None or MESSAGES[request].reply is not type(message):
            waiting = request.name if request else "nothing"
            raise LocalProtocolError(
                f"{type(message).__name__} for correlation id {correlation}, under which {waiting} waits"
            )
        data = encode_message(message, correlation)
        if len(data) - HEADER_BYTES > FRAME_BYTES_MAX:
            raise BatchTooLarge(
                f"the answer has {len(data) - HEADER_BYTES} bytes; a frame has {FRAME_BYTES_MAX} at most: ask for less"
            )
        del self._unanswered[correlation]
        if isinstance(message, Welcome):
            self._move(Event.WELCOME)
            assert self.role is not None
            self._accepted = SENT_BY[self.role]
        return data

    def refuse(self, correlation: int, error: BrokerError) -> bytearray:
        """Return the bytes of a refusal; the connection is closing after a code that closes.

        A refused `Hello` always closes: the peer would have no way to say another one.

        Raises:
            LocalProtocolError: Nothing waits under *correlation*.
        """
        if self._is_silent():
            return bytearray()
        request = self._unanswered.pop(correlation, None)
        if request is None:
            raise LocalProtocolError(f"a refusal for correlation id {correlation}, under which nothing waits: {error}")
        closes = CODES[error.code].closes or request is Type.HELLO
        if closes:
            self._end_conversation()
        return encode_message(refusal(error, closes=closes), correlation)

    def push(self, message: msgspec.Struct) -> bytearray:
        """Return the bytes of a message that nobody asked for; empty when the connection no longer sends.

        Raises:
            LocalProtocolError: The peer is not welcomed yet, or its role does not get this message.
        """
        if self._is_silent():
            return bytearray()
        number = TYPE_OF[type(message)]
        if self.state is not ConnectionState.OPEN or self.role is None or number not in PUSHED_TO[self.role]:
            role = self.role.value if self.role else "peer of unknown role"
            raise LocalProtocolError(f"a push of {number.name} to a {role}, {self.state.value}")
        return encode_message(message, 0)

    def dismiss(self, error: BrokerError) -> bytearray:
        """Return the bytes that end the conversation for a reason of the broker's; write them, then close."""
        if self._is_silent():
            return bytearray()
        self._end_conversation()
        return encode_message(refusal(error, closes=True), 0)

    def ended(self) -> None:
        """Note that the transport has ended."""
        self._move(Event.END)
        self._unanswered.clear()

    def _is_silent(self) -> bool:
        return self.state is ConnectionState.CLOSING or self.state is ConnectionState.CLOSED

    def _dismiss_for(self, violation: RemoteProtocolError) -> None:
        self.last_words = bytes(self.dismiss(_as_refusal(violation)))

    def _end_conversation(self) -> None:
        self._move(Event.DISMISSAL)
        self._accepted = _NOTHING
        self._unanswered.clear()

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


def refusal(error: BrokerError, *, closes: bool) -> Error:
    """Return the message that says *error*."""
    return Error(
        error.code.value,
        str(error),
        CODES[error.code].retryable,
        closes=closes,
        retry_after_ms=error.retry_after_ms,
    )


def _as_refusal(violation: RemoteProtocolError) -> BrokerError:
    match violation:
        case FrameTooLong():
            return FrameTooLarge(str(violation))
        case VersionUnknown():
            return UnsupportedVersion(str(violation))
        case _:
            return ProtocolViolation(str(violation))
