"""The broker's side of a connection: what it takes when, what it may say, how it ends."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.upgrade.wire import EXAMPLES, ID_1, INFO, SECRET, SESSION
from tq.core.errors import (
    BatchTooLarge,
    InvalidArgument,
    LocalProtocolError,
    Overloaded,
    RemoteProtocolError,
    SessionUnknown,
    broker_error,
)
from tq.protocol import messages as m
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.frames import HEADER, Frame, FrameReader
from tq.protocol.messages import MAGIC, MESSAGES, TYPE_OF, VERSIONS, Hello, Role, Type, Versions
from tq.protocol.states import NOTICES, SENT_BY, ConnectionState

WELCOME = m.Welcome(VERSIONS.first, "tq-broker test", 0, m.Limits(1 << 20, 1 << 18, 1_000, 2_000, 10_000))
HELLO = {
    Role.CLIENT: Hello(MAGIC, VERSIONS.first, Role.CLIENT),
    Role.WORKER: Hello(MAGIC, VERSIONS.first, Role.WORKER, "", SESSION, SECRET, INFO),
    Role.KEEPER: Hello(MAGIC, VERSIONS.first, Role.KEEPER, "", SESSION, SECRET),
}


def sent(conn: ServerConnection, message: msgspec.Struct, correlation: int) -> Request:
    """What the broker gets when its peer sends *message*."""
    [frame] = conn.receive(bytes(encode_message(message, correlation)))
    return conn.decode(frame)


def opened(role: Role = Role.CLIENT) -> ServerConnection:
    conn = ServerConnection()
    sent(conn, HELLO[role], 1)
    conn.reply(1, WELCOME)
    return conn


def said(data: bytes | bytearray) -> list[tuple[int, msgspec.Struct]]:
    """The messages in what the broker wrote, with their correlation ids."""
    return [(frame.correlation, decode_message(frame.kind, frame.body)) for frame in FrameReader().feed(data)]


@pytest.mark.parametrize("role", Role)
def test_a_peer_says_hello_and_is_welcomed(role: Role) -> None:
    conn = ServerConnection()

    request = sent(conn, HELLO[role], 1)
    answer = conn.reply(1, WELCOME)

    assert request.message == conn.hello == HELLO[role]
    assert conn.role is role
    assert said(answer) == [(1, WELCOME)]
    assert conn.state is ConnectionState.OPEN


def test_a_request_is_answered_under_its_correlation_id() -> None:
    conn = opened()

    request = sent(conn, m.Ping(), 7)
    waiting = conn.unanswered
    answer = conn.reply(7, m.Pong("tq-broker test", 5))

    assert request == Request(Type.PING, 7, m.Ping(), 11)
    assert waiting == 1
    assert said(answer) == [(7, m.Pong("tq-broker test", 5))]
    assert conn.unanswered == 0


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_role_sends_what_its_row_of_the_table_lists_and_nothing_else(role: Role, message: msgspec.Struct) -> None:
    conn = opened(role)
    number = TYPE_OF[type(message)]
    correlation = 0 if number in NOTICES else 5

    if number in SENT_BY[role]:
        assert sent(conn, message, correlation).message == message
    else:
        with pytest.raises(RemoteProtocolError, match=number.name):
            sent(conn, message, correlation)
        assert conn.state is ConnectionState.CLOSING


@pytest.mark.parametrize(
    "message, correlation, complaint",
    [
        (m.Ping(), 1, "PING before HELLO"),
        (HELLO[Role.CLIENT], 0, "from 1"),
        (Hello(b"http", VERSIONS.first, Role.CLIENT), 1, "magic b'http'"),
        (Hello(MAGIC, VERSIONS.first, Role.WORKER, "", None, None, INFO), 1, "without its session and secret"),
        (Hello(MAGIC, VERSIONS.first, Role.WORKER, "", SESSION, SECRET), 1, "without saying what it is"),
        (Hello(MAGIC, VERSIONS.first, Role.KEEPER, "", SESSION, None), 1, "without its session and secret"),
    ],
)
def test_a_bad_first_message_ends_the_conversation(message: msgspec.Struct, correlation: int, complaint: str) -> None:
    conn = ServerConnection()

    with pytest.raises(RemoteProtocolError) as caught:
        sent(conn, message, correlation)

    assert complaint in str(caught.value)
    [(under, error)] = said(conn.last_words)
    assert under == 0
    assert error == m.Error("protocol_violation", str(caught.value), retryable=False, closes=True)


def test_a_peer_of_another_version_is_told_so() -> None:
    conn = ServerConnection()

    with pytest.raises(RemoteProtocolError, match="speaks versions 2 to 4; this broker speaks version 1"):
        sent(conn, Hello(MAGIC, 2, Role.CLIENT, version_max=4), 1)

    [(_, error)] = said(conn.last_words)
    assert isinstance(error, m.Error)
    assert error.code == "unsupported_version"


@pytest.mark.parametrize(
    "offered, spoken, chosen",
    [
        (Versions(1, 1), Versions(1, 1), 1),
        (Versions(1, 3), Versions(1, 1), 1),
        (Versions(1, 1), Versions(1, 3), 1),
        (Versions(1, 3), Versions(2, 5), 3),
        (Versions(2, 5), Versions(1, 3), 3),
        (Versions(3, 3), Versions(1, 5), 3),
        (Versions(3, 1), Versions(1, 5), 3),
    ],
)
def test_the_highest_version_that_both_speak_is_spoken(offered: Versions, spoken: Versions, chosen: int) -> None:
    conn = ServerConnection(versions=spoken)

    sent(conn, Hello(MAGIC, offered.first, Role.CLIENT, version_max=offered.last), 1)

    assert conn.version == chosen


@pytest.mark.parametrize(
    "offered, spoken", [(Versions(1, 2), Versions(3, 4)), (Versions(3, 4), Versions(1, 2)), (Versions(0, 0), VERSIONS)]
)
def test_versions_that_do_not_meet_are_both_named(offered: Versions, spoken: Versions) -> None:
    conn = ServerConnection(versions=spoken)

    with pytest.raises(RemoteProtocolError) as caught:
        sent(conn, Hello(MAGIC, offered.first, Role.CLIENT, version_max=offered.last), 1)

    assert f"speaks {offered.first}" in str(caught.value).replace("versions ", "").replace("version ", "")
    assert str(spoken) in str(caught.value)


def test_nothing_may_be_sent_between_hello_and_welcome() -> None:
    conn = ServerConnection()
    sent(conn, HELLO[Role.CLIENT], 1)

    with pytest.raises(RemoteProtocolError, match="PING before the WELCOME"):
        sent(conn, m.Ping(), 2)


@pytest.mark.parametrize(
    "message, correlation, complaint",
    [
        (m.Ping(), 0, "a request has a correlation id from 1"),
        (m.Unwait([ID_1]), 3, "a notice has correlation id 0"),
        (m.Ping(), 9, "PING has already"),
    ],
)
def test_the_rules_of_correlation_ids_are_kept(message: msgspec.Struct, correlation: int, complaint: str) -> None:
    conn = opened()
    sent(conn, m.Ping(), 9)

    with pytest.raises(RemoteProtocolError, match=complaint):
        sent(conn, message, correlation)


def test_an_answered_correlation_id_may_be_used_again() -> None:
    conn = opened()

    for _ in range(2):
        sent(conn, m.Ping(), 9)
        assert conn.reply(9, m.Pong("", 0))


def test_an_oversized_frame_is_refused_with_its_own_code() -> None:
    conn = ServerConnection(body_bytes_max=100)

    with pytest.raises(RemoteProtocolError):
        conn.receive(HEADER.pack(101, Type.HELLO, 0, 1))

    [(_, error)] = said(conn.last_words)
    assert isinstance(error, m.Error)
    assert (error.code, error.closes) == ("frame_too_large", True)


def test_what_arrives_after_a_violation_is_not_read() -> None:
    conn = opened()
    with pytest.raises(RemoteProtocolError):
        conn.receive(HEADER.pack(0, Type.PING, 1, 1))

    assert conn.receive(bytes(encode_message(m.Ping(), 2))) == []
    with pytest.raises(LocalProtocolError, match="void"):
        conn.decode(Frame(Type.PING, 2, b"\x90"))


def test_frames_are_decoded_when_their_turn_comes() -> None:
    conn = opened()

    good, bad = conn.receive(bytes(encode_message(m.Ping(), 2)) + HEADER.pack(1, Type.GET, 0, 3) + b"\xc1")

    assert conn.decode(good).correlation == 2
    with pytest.raises(RemoteProtocolError, match="Get cannot be decoded"):
        conn.decode(bad)


def test_a_refusal_says_what_its_code_means() -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)

    answer = conn.refuse(2, broker_error("overloaded", "1,000 requests wait", 250))

    expected = m.Error("overloaded", "1,000 requests wait", retryable=True, closes=False, retry_after_ms=250)
    assert said(answer) == [(2, expected)]
    assert conn.state is ConnectionState.OPEN
    assert conn.unanswered == 0


def test_a_refusal_that_closes_is_the_last_that_is_sent() -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)
    sent(conn, m.Ping(), 3)

    answer = conn.refuse(2, broker_error("internal", "a bug"))

    [(_, error)] = said(answer)
    assert isinstance(error, m.Error)
    assert error.closes
    assert conn.state is ConnectionState.CLOSING
    assert conn.reply(3, m.Pong("", 0)) == conn.push(m.GoingAway()) == conn.refuse(3, Overloaded()) == b""


@pytest.mark.parametrize("error", [SessionUnknown("unknown"), Overloaded("later")])
def test_a_refused_hello_always_closes(error: SessionUnknown | Overloaded) -> None:
    conn = ServerConnection()
    sent(conn, HELLO[Role.WORKER], 1)

    [(correlation, message)] = said(conn.refuse(1, error))

    assert isinstance(message, m.Error)
    assert (correlation, message.code, message.closes) == (1, error.code.value, True)
    assert conn.state is ConnectionState.CLOSING


def test_the_broker_can_end_a_conversation_for_its_own_reasons() -> None:
    conn = opened()

    [(correlation, error)] = said(conn.dismiss(broker_error("going_away", "stopping")))

    assert (correlation, error) == (0, m.Error("going_away", "stopping", retryable=True, closes=True))
    assert conn.dismiss(InvalidArgument("twice")) == b""


@pytest.mark.parametrize(
    "correlation, message, complaint",
    [
        (3, m.Pong("", 0), "under which nothing waits"),
        (2, m.Enqueued(), "under which PING waits"),
        (2, m.Ping(), "under which PING waits"),
    ],
)
def test_a_reply_that_nobody_waits_for_is_our_own_bug(
    correlation: int, message: msgspec.Struct, complaint: str
) -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)

    with pytest.raises(LocalProtocolError, match=complaint):
        conn.reply(correlation, message)


def test_an_answer_that_no_peer_would_read_can_only_be_refused() -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)

    with pytest.raises(BatchTooLarge, match="ask for less"):
        conn.reply(2, m.Pong("x" * (1 << 20), 0))

    assert said(conn.refuse(2, BatchTooLarge("")))
    assert conn.state is ConnectionState.OPEN


def test_a_request_is_answered_once() -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)
    conn.reply(2, m.Pong("", 0))

    with pytest.raises(LocalProtocolError):
        conn.reply(2, m.Pong("", 0))
    with pytest.raises(LocalProtocolError):
        conn.refuse(2, Overloaded())


@pytest.mark.parametrize(
    "role, message, allowed",
    [
        (Role.CLIENT, m.Results([]), True),
        (Role.CLIENT, m.GoingAway(), True),
        (Role.CLIENT, m.Deliver(1, False, []), False),
        (Role.CLIENT, m.Pong("", 0), False),
        (Role.WORKER, m.Deliver(1, False, []), True),
        (Role.WORKER, m.Revoke([]), True),
        (Role.WORKER, m.Results([]), False),
        (Role.KEEPER, m.GoingAway(), True),
        (Role.KEEPER, m.Revoke([]), False),
    ],
)
def test_pushes_go_to_the_roles_that_get_them(role: Role, message: msgspec.Struct, allowed: bool) -> None:
    conn = opened(role)

    if allowed:
        assert said(conn.push(message)) == [(0, message)]
    else:
        with pytest.raises(LocalProtocolError, match=f"to a {role.value}"):
            conn.push(message)


def test_nothing_is_pushed_before_the_welcome() -> None:
    conn = ServerConnection()
    sent(conn, HELLO[Role.CLIENT], 1)

    with pytest.raises(LocalProtocolError, match="greeting"):
        conn.push(m.GoingAway())


def test_a_connection_that_has_ended_takes_and_gives_nothing() -> None:
    conn = opened()
    sent(conn, m.Ping(), 2)

    conn.ended()

    assert conn.unanswered == 0
    assert conn.receive(b"\xff" * 100) == []
    assert conn.reply(2, m.Pong("", 0)) == b""
    assert conn.dismiss(broker_error("going_away", "")) == b""


@given(
    opened_first=st.booleans(),
    reads=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda message, correlation: bytes(encode_message(message, correlation)),
                st.sampled_from(EXAMPLES),
                st.integers(0, 5),
            ),
        )
    ),
)
def test_whatever_a_peer_sends_it_gets_last_words_or_is_understood(opened_first: bool, reads: list[bytes]) -> None:
    conn = opened() if opened_first else ServerConnection()

    for data in reads:
        try:
            for frame in conn.receive(data):
                request = conn.decode(frame)
                assert isinstance(request.message, MESSAGES[request.kind].kind)
        except RemoteProtocolError:
            [(correlation, error)] = said(conn.last_words)
            assert (correlation, type(error)) == (0, m.Error)
            assert conn.state is ConnectionState.CLOSING
            return

    assert conn.last_words == b""
