"""The client's side of a connection, against the broker's side, without a socket between them."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.upgrade.wire import EXAMPLES, ID_1, SECRET, SESSION
from tq.core.errors import (
    FrameTooLarge,
    GoingAway,
    InternalError,
    InvalidArgument,
    LocalProtocolError,
    Overloaded,
    RemoteProtocolError,
    SessionUnknown,
    UnsupportedVersion,
    broker_error,
)
from tq.protocol import messages as m
from tq.protocol.codec import encode_message
from tq.protocol.connection import ServerConnection
from tq.protocol.frames import CORRELATION_MAX, encode_frame
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Role
from tq.protocol.session import ClientSession, Dismissed, Push, Refused, Reply, Welcomed
from tq.protocol.states import ConnectionState

LIMITS = m.Limits(1 << 20, 1 << 18, 1_000, 2_000, 10_000)
WELCOME = m.Welcome(VERSIONS.first, "tq-broker test", 0, LIMITS)
HELLO = Hello(MAGIC, VERSIONS.first, Role.CLIENT)
PONG = m.Pong("tq-broker test", 5)


class Pair:
    """Both ends of a connection; `call` sends a request and shows it to the broker's end."""

    def __init__(self, hello: Hello = HELLO, welcome: m.Welcome = WELCOME) -> None:
        self.session = ClientSession(hello)
        self.broker = ServerConnection()
        self._show(self.session.start())
        self.events = self.session.receive(self.broker.reply(1, welcome))

    def call(self, message: msgspec.Struct, deadline: float | None = None) -> int:
        correlation, data = self.session.request(message, deadline)
        self._show(data)
        return correlation

    def _show(self, data: bytes | bytearray) -> None:
        for frame in self.broker.receive(bytes(data)):
            self.broker.decode(frame)


def test_a_session_opens_with_the_welcome() -> None:
    pair = Pair()

    assert pair.events == [Welcomed(WELCOME)]
    assert pair.session.is_open
    assert pair.session.welcome == WELCOME


def test_a_request_gets_its_reply() -> None:
    pair = Pair()

    first, second = pair.call(m.Ping()), pair.call(m.Get([ID_1]))
    events = pair.session.receive(pair.broker.reply(second, m.Tasks([None])) + pair.broker.reply(first, PONG))

    assert events == [Reply(second, m.Tasks([None])), Reply(first, PONG)]
    assert pair.session.pending == 0


def test_a_request_may_be_refused() -> None:
    pair = Pair()
    correlation = pair.call(m.Ping())

    [event] = pair.session.receive(pair.broker.refuse(correlation, broker_error("overloaded", "later", 50)))

    assert isinstance(event, Refused)
    assert event.correlation == correlation
    assert isinstance(event.error, Overloaded)
    assert (str(event.error), event.error.retry_after_ms) == ("later", 50)
    assert pair.session.is_open


def test_a_refusal_that_closes_ends_the_conversation_too() -> None:
    pair = Pair()
    refused, other = pair.call(m.Ping()), pair.call(m.Ping())

    events = pair.session.receive(pair.broker.refuse(refused, broker_error("internal", "a bug")))

    assert [type(event) for event in events] == [Refused, Dismissed]
    assert all(isinstance(event.error, InternalError) for event in events if isinstance(event, Refused | Dismissed))
    assert pair.session.state is ConnectionState.CLOSING
    assert pair.session.lost() == [other]


def test_pushes_come_in_their_place_among_the_replies() -> None:
    pair = Pair()
    correlation = pair.call(m.Ping())

    events = pair.session.receive(
        pair.broker.push(m.Results([])) + pair.broker.reply(correlation, PONG) + pair.broker.push(m.GoingAway("stop"))
    )

    assert events == [Push(m.Results([])), Reply(correlation, PONG), Push(m.GoingAway("stop"))]


def test_the_broker_may_dismiss_a_session() -> None:
    pair = Pair()

    [event] = pair.session.receive(pair.broker.dismiss(broker_error("going_away", "stopping")))

    assert isinstance(event, Dismissed)
    assert isinstance(event.error, GoingAway)


def test_a_refused_hello_dismisses_the_session() -> None:
    session = ClientSession(Hello(MAGIC, VERSIONS.first, Role.KEEPER, "", SESSION, SECRET))
    broker = ServerConnection()
    [frame] = broker.receive(bytes(session.start()))
    broker.decode(frame)

    [event] = session.receive(broker.refuse(1, SessionUnknown("expired")))

    assert isinstance(event, Dismissed)
    assert isinstance(event.error, SessionUnknown)


def test_a_broker_of_another_version_is_left() -> None:
    session = ClientSession(HELLO)
    session.start()

    [event] = session.receive(encode_message(m.Welcome(2, "tq-broker 9", 0, LIMITS), 1))

    assert isinstance(event, Dismissed)
    assert isinstance(event.error, UnsupportedVersion)


@pytest.mark.parametrize("chosen, is_welcome", [(1, False), (2, True), (3, True), (4, False)])
def test_a_broker_chooses_among_the_versions_that_it_is_offered(chosen: int, is_welcome: bool) -> None:
    session = ClientSession(Hello(MAGIC, 2, Role.CLIENT, version_max=3))
    session.start()

    [event] = session.receive(encode_message(m.Welcome(chosen, "tq-broker 9", 0, LIMITS), 1))

    assert isinstance(event, Welcomed) is is_welcome
    assert isinstance(event, Welcomed) or f"version {chosen}; this side speaks versions 2 to 3" in str(event)


def test_deadlines_expire_in_their_time_and_late_answers_are_dropped() -> None:
    pair = Pair()
    early, late, never = pair.call(m.Ping(), 10.0), pair.call(m.Ping(), 20.0), pair.call(m.Ping())

    assert pair.session.next_deadline() == 10.0
    assert pair.session.expired(9.9) == []
    assert pair.session.expired(10.0) == [early]
    assert pair.session.next_deadline() == 20.0
    events = pair.session.receive(
        b"".join(pair.broker.reply(correlation, PONG) for correlation in (early, late, never))
    )
    assert events == [Reply(late, PONG), Reply(never, PONG)]
    assert pair.session.next_deadline() is None


def test_a_late_refusal_is_dropped_but_one_that_closes_is_heard() -> None:
    pair = Pair()
    first, second = pair.call(m.Ping(), 1.0), pair.call(m.Ping(), 1.0)
    pair.session.expired(1.0)

    quiet = pair.session.receive(pair.broker.refuse(first, Overloaded("later")))
    closing = pair.session.receive(pair.broker.refuse(second, broker_error("internal", "a bug")))

    assert quiet == []
    assert [type(event) for event in closing] == [Dismissed]


@pytest.mark.parametrize(
    "wire",
    [
        encode_message(PONG, 99),
        encode_message(m.Enqueued(), 2),
        encode_message(m.Ping(), 2),
        encode_message(m.Deliver(1, False, []), 0),
        encode_message(PONG, 0),
        encode_message(WELCOME, 1),
        encode_frame(m.Type.PONG, 2, b"\xc1"),
        encode_frame(77, 2, b"\x90"),
        b"\xff" * 10,
    ],
)
def test_a_broker_that_breaks_a_rule_is_left_and_loses_nothing(wire: bytes | bytearray) -> None:
    pair = Pair()
    waiting = pair.call(m.Ping())
    answered = pair.call(m.Ping())
    assert waiting == 2

    events = pair.session.receive(bytes(pair.broker.reply(answered, PONG)))
    events += pair.session.receive(bytes(wire))

    assert events[0] == Reply(answered, PONG)
    assert isinstance(events[1], Dismissed)
    assert isinstance(events[1].error, RemoteProtocolError)
    assert pair.session.receive(bytes(encode_message(PONG, waiting))) == []
    assert pair.session.lost() == [waiting]


def test_a_reply_in_the_same_read_as_a_violation_is_not_lost() -> None:
    pair = Pair()
    correlation = pair.call(m.Ping())

    events = pair.session.receive(pair.broker.reply(correlation, PONG) + encode_message(PONG, correlation))

    assert [type(event) for event in events] == [Reply, Dismissed]


@pytest.mark.parametrize("wire", [encode_message(PONG, 1), encode_message(WELCOME, 2), encode_message(WELCOME, 0)])
def test_anything_but_a_welcome_after_the_hello_is_a_violation(wire: bytearray) -> None:
    session = ClientSession(HELLO)
    session.start()

    [event] = session.receive(bytes(wire))

    assert isinstance(event, Dismissed)


def test_a_broker_that_speaks_first_is_left() -> None:
    session = ClientSession(HELLO)

    [event] = session.receive(bytes(encode_message(WELCOME, 1)))

    assert isinstance(event, Dismissed)


def test_correlation_ids_wrap_around_past_those_in_use() -> None:
    pair = Pair()
    old, expired = pair.call(m.Ping()), pair.call(m.Ping(), 1.0)
    pair.session.expired(1.0)
    pair.session._last = CORRELATION_MAX - 1

    assert (old, expired) == (2, 3)
    assert [pair.call(m.Ping()) for _ in range(4)] == [CORRELATION_MAX, 1, 4, 5]


def test_what_may_not_be_sent_now_is_our_own_bug() -> None:
    session = ClientSession(HELLO)
    with pytest.raises(LocalProtocolError, match="awaiting hello"):
        session.request(m.Ping(), None)

    session.start()

    with pytest.raises(LocalProtocolError, match="greeting"):
        session.request(m.Ping(), None)
    with pytest.raises(LocalProtocolError, match="hello on a connection"):
        session.start()


@pytest.mark.parametrize("message", [m.Settle([]), m.Heartbeat(1), HELLO, PONG])
def test_a_role_sends_what_is_its_own(message: msgspec.Struct) -> None:
    with pytest.raises(LocalProtocolError, match="not for a client"):
        Pair().session.request(message, None)


def test_requests_are_not_notices_nor_the_other_way_round() -> None:
    session = Pair().session

    with pytest.raises(LocalProtocolError, match="nothing answers it"):
        session.request(m.Unwait([ID_1]), None)
    with pytest.raises(LocalProtocolError, match="must be waited for"):
        session.notify(m.Ping())


def test_a_notice_has_no_correlation_id() -> None:
    pair = Pair()

    data = pair.session.notify(m.Unwait([ID_1]))

    [frame] = pair.broker.receive(bytes(data))
    assert pair.broker.decode(frame).correlation == 0


def test_a_frame_that_the_broker_would_not_read_is_not_sent() -> None:
    pair = Pair(welcome=m.Welcome(VERSIONS.first, "", 0, m.Limits(100, 50, 10, 2_000, 10_000)))

    with pytest.raises(FrameTooLarge, match=r"Get of 1\d\d bytes; the broker reads 100"):
        pair.session.request(m.Get([ID_1] * 6), None)

    assert pair.session.pending == 0
    assert pair.call(m.Ping()) == 2


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (m.ListQueues("a\udcff"), r"ListQueues: text must be what UTF-8 can encode; got 'a\\udcff'"),
        (m.ListTasks("ready", None, 2**70), "ListTasks cannot be encoded: .*ints"),
        (m.Cancel([object()]), "Cancel cannot be encoded: .*object"),  # type: ignore[list-item]
    ],
)
def test_a_message_that_has_no_encoding_is_refused_and_the_connection_goes_on(
    message: msgspec.Struct, named: str
) -> None:
    pair = Pair()

    with pytest.raises(InvalidArgument, match=named):
        pair.session.request(message, None)

    assert pair.session.pending == 0
    assert pair.call(m.Ping()) == 2


def test_a_session_that_has_ended_gives_back_what_waits_once() -> None:
    pair = Pair()
    waiting = [pair.call(m.Ping()), pair.call(m.Ping())]

    assert pair.session.lost() == waiting
    assert pair.session.lost() == []
    with pytest.raises(LocalProtocolError, match="closed"):
        pair.session.request(m.Ping(), None)


@given(data=st.data())
def test_every_request_comes_back_exactly_once(data: st.DataObject) -> None:
    pair = Pair()
    open_at_broker: list[int] = []
    out: list[int] = []
    back: list[int] = []

    for now in range(data.draw(st.integers(0, 12))):
        match data.draw(st.sampled_from(["call", "call", "answer", "refuse", "expire", "noise"])):
            case "call":
                out.append(pair.call(m.Ping(), data.draw(st.none() | st.integers(0, 12))))
                open_at_broker.append(out[-1])
            case "expire":
                back += pair.session.expired(now)
            case "noise":
                wire = data.draw(st.binary(max_size=20) | st.sampled_from(EXAMPLES).map(lambda e: encode_message(e, 3)))
                back += came_back(pair.session.receive(bytes(wire)))
            case answer:
                if not open_at_broker:
                    continue
                correlation = open_at_broker.pop(data.draw(st.integers(0, len(open_at_broker) - 1)))
                wire = (
                    pair.broker.reply(correlation, PONG)
                    if answer == "answer"
                    else pair.broker.refuse(correlation, Overloaded(""))
                )
                back += came_back(pair.session.receive(bytes(wire)))
        if not pair.session.is_open:
            break
    back += pair.session.lost()

    assert sorted(back) == sorted(out)


def came_back(events: list[Welcomed | Reply | Refused | Push | Dismissed]) -> list[int]:
    return [event.correlation for event in events if isinstance(event, Reply | Refused)]
