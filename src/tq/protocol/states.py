"""The life of a connection, as tables that both its ends run on.

    await hello ----> greeting ----> open        a violation or a closing refusal leads to
         |               |            |          closing: what arrives then is not read,
         +-------------> closing <----+          nothing more is sent
                            |
                            +-----> closed       the transport has ended; from every state

Invariant: between `Hello` and `Welcome` nothing else is sent, in either direction.
"""

from enum import Enum

from tq.protocol.messages import MESSAGES, Role, Type


class ConnectionState(Enum):
    """Where a connection is; the same words serve both ends."""

    AWAITING_HELLO = "awaiting hello"
    """Connected; the peer of the broker has not said what it is."""
    GREETING = "greeting"
    """`Hello` is sent, `Welcome` is not."""
    OPEN = "open"
    """Requests, replies and pushes flow."""
    CLOSING = "closing"
    """The broker has sent its last message, an `Error`."""
    CLOSED = "closed"
    """The transport has ended."""


class Event(Enum):
    """What moves a connection from one state to another."""

    HELLO = "hello"
    WELCOME = "welcome"
    DISMISSAL = "dismissal"
    END = "end"


TRANSITIONS: dict[tuple[ConnectionState, Event], ConnectionState] = {
    (ConnectionState.AWAITING_HELLO, Event.HELLO): ConnectionState.GREETING,
    (ConnectionState.GREETING, Event.WELCOME): ConnectionState.OPEN,
    (ConnectionState.AWAITING_HELLO, Event.DISMISSAL): ConnectionState.CLOSING,
    (ConnectionState.GREETING, Event.DISMISSAL): ConnectionState.CLOSING,
    (ConnectionState.OPEN, Event.DISMISSAL): ConnectionState.CLOSING,
    **{(state, Event.END): ConnectionState.CLOSED for state in ConnectionState},
}

SENT_BY: dict[Role, frozenset[Type]] = {
    role: frozenset(
        number
        for number, row in MESSAGES.items()
        if row.sent_by is not None and role in row.sent_by and number is not Type.HELLO
    )
    for role in Role
}
"""What a peer of the broker may send on an open connection, by its role."""

PUSHED_TO: dict[Role, frozenset[Type]] = {
    Role.CLIENT: frozenset({Type.RESULTS, Type.GOING_AWAY}),
    Role.WORKER: frozenset({Type.DELIVER, Type.REVOKE, Type.GOING_AWAY}),
    Role.KEEPER: frozenset({Type.GOING_AWAY}),
}
"""What the broker may send unasked on an open connection, by the role of its peer."""

NOTICES: frozenset[Type] = frozenset(
    number for number, row in MESSAGES.items() if row.sent_by is not None and row.reply is None
)
"""What a peer of the broker sends without an answer, with correlation id 0."""
