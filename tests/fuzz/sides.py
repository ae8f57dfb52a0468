"""Both ends of a connection without I/O, under frames that no honest peer sends.

Whatever comes, an end gives a whole message of the kind that its number says, or breaks off with
a `RemoteProtocolError`; it never raises anything else, and never holds more than one frame.
"""

import random
from contextlib import suppress

import msgspec

from tests.fuzz.mutate import EXAMPLE_OF, Mutator
from tests.upgrade.wire import AT, INFO, SECRET, SESSION
from tq.core.errors import BrokerError, RemoteProtocolError, TaskNotFound
from tq.core.limits import FRAME_BYTES_MAX
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.frames import HEADER_BYTES, Frame, FrameReader
from tq.protocol.messages import MAGIC, MESSAGES, TYPE_OF, VERSIONS, Error, Hello, Limits, Role, Type, Welcome
from tq.protocol.session import ClientSession, Dismissed, Push, Refused, Reply, Welcomed
from tq.protocol.states import NOTICES, PUSHED_TO, SENT_BY, ConnectionState

HELLOS = {
    Role.CLIENT: Hello(MAGIC, VERSIONS.first, Role.CLIENT),
    Role.WORKER: Hello(MAGIC, VERSIONS.first, Role.WORKER, "", SESSION, SECRET, INFO),
    Role.KEEPER: Hello(MAGIC, VERSIONS.first, Role.KEEPER, "", SESSION, SECRET),
}
_GREETINGS = {role: bytes(encode_message(hello, 1)) for role, hello in HELLOS.items()}
_WELCOME = Welcome(1, "broker", AT, Limits(FRAME_BYTES_MAX, 1 << 18, 1_000, 2_000, 10_000))
_WELCOMED = bytes(encode_message(_WELCOME, 1))
_ROLES = list(Role)
# Of the frames of one connection. A violation ends it, so that only where there are few much is read.
_HARM = [0.05, 0.2, 0.5, 0.9]
_SENT = {role: sorted(numbers) for role, numbers in SENT_BY.items()}
_PUSHED = {role: sorted(numbers) for role, numbers in PUSHED_TO.items()}
_ANY = list(Type)
_REFUSAL = TaskNotFound("for once")


def attack_broker_end(draw: random.Random, frames: int) -> int:
    """Let broker's ends of connections judge so many *frames*; return how many were messages to them."""
    mutator = Mutator(draw)
    judged = taken = 0
    while judged < frames:
        mutator.harm = draw.choice(_HARM)
        role = draw.choice(_ROLES)
        stream = mutator.frame(Type.HELLO, 1) if draw.random() < 0.1 else _GREETINGS[role]
        stream += b"".join(_frames_to_broker(mutator, role, draw.randrange(1, 30)))
        messages, violations = _broker_end_takes(ServerConnection(), mutator, stream)
        taken += messages
        judged += messages + violations
    return taken


def _frames_to_broker(mutator: Mutator, role: Role, number: int) -> list[bytes]:
    draw = mutator.draw
    frames = []
    for correlation in range(2, number + 2):
        kind = draw.choice(_SENT[role] if draw.random() < 0.97 else _ANY)
        wanted = 0 if kind in NOTICES else correlation if draw.random() < 0.98 else draw.randrange(correlation)
        frames.append(mutator.frame(kind, wanted))
    return frames


def _broker_end_takes(conn: ServerConnection, mutator: Mutator, stream: bytes) -> tuple[int, int]:
    """Return how many messages *stream* was, and how many violations: one, or none."""
    taken = 0
    read: list[Frame] = []
    broken = False
    for piece in mutator.cut(stream):
        try:
            frames = conn.receive(piece)
            read += frames
            assert conn.pending_bytes < FRAME_BYTES_MAX + HEADER_BYTES + len(piece), conn.pending_bytes
            for frame in frames:
                request = conn.decode(frame)
                check_message(request.kind, request.message)
                taken += 1
                _answer(conn, mutator.draw, request)
        except RemoteProtocolError:
            broken = True
            check_last_words(conn)
            break
    if not broken:
        # However it is cut, a stream is the same frames.
        assert FrameReader().feed(stream) == read
        assert conn.state is not ConnectionState.CLOSING
    conn.ended()
    return taken, int(broken)


def _answer(conn: ServerConnection, draw: random.Random, request: Request) -> None:
    if isinstance(request.message, Hello):
        conn.reply(request.correlation, _WELCOME)
        return
    reply = MESSAGES[request.kind].reply
    if reply is None or (chance := draw.random()) < 0.3:
        return
    answer = (
        conn.refuse(request.correlation, _REFUSAL)
        if chance < 0.4
        else conn.reply(request.correlation, EXAMPLE_OF[TYPE_OF[reply]])
    )
    assert answer


def check_message(number: int, message: msgspec.Struct) -> None:
    """Make sure that *message* is what *number* says, and that it can be said again."""
    assert type(message) is MESSAGES[Type(number)].kind, (number, message)
    once = bytes(encode_message(message, 1))
    again = decode_message(number, once[HEADER_BYTES:])
    # By their bytes: one nan is not equal to another.
    assert bytes(encode_message(again, 1)) == once, (message, again)


def check_last_words(conn: ServerConnection) -> None:
    """Make sure that a connection which a violation has ended says so, in one message."""
    assert conn.state is ConnectionState.CLOSING
    (frame,) = FrameReader().feed(conn.last_words)
    error = decode_message(frame.kind, frame.body)
    assert isinstance(error, Error)
    assert error.closes
    assert len(conn.last_words) < 10_000, len(conn.last_words)
    assert conn.receive(b"more") == []


def attack_client_end(draw: random.Random, frames: int) -> int:
    """Let clients' ends of connections judge so many *frames*; return how many were messages to them."""
    mutator = Mutator(draw)
    judged = taken = 0
    while judged < frames:
        mutator.harm = draw.choice(_HARM)
        role = draw.choice(_ROLES)
        session = ClientSession(HELLOS[role])
        session.start()
        if draw.random() < 0.1:
            stream = mutator.frame(draw.choice([Type.WELCOME, Type.WELCOME, Type.ERROR]), 1)
            messages, violations = _client_end_takes(session, mutator, stream, {})
            taken += messages
            judged += messages + violations
            if not session.is_open:
                continue
        else:
            session.receive(_WELCOMED)
        asked = _ask(session, draw, role)
        stream = b"".join(_frames_to_client(mutator, role, asked))
        messages, violations = _client_end_takes(session, mutator, stream, asked)
        taken += messages
        judged += messages + violations
    return taken


def _ask(session: ClientSession, draw: random.Random, role: Role) -> dict[int, Type]:
    asked: dict[int, Type] = {}
    requests = [number for number in _SENT[role] if number not in NOTICES]
    for _ in range(draw.randrange(1, 12)):
        number = draw.choice(requests)
        # After a harmed welcome, a limit may be too low for any request.
        with suppress(BrokerError):
            correlation, _ = session.request(EXAMPLE_OF[number], draw.choice([None, 1.0, 9.0]))
            asked[correlation] = number
    return asked


def _frames_to_client(mutator: Mutator, role: Role, asked: dict[int, Type]) -> list[bytes]:
    draw = mutator.draw
    frames = [
        mutator.frame(draw.choice(_PUSHED[role] if draw.random() < 0.9 else _ANY), 0)
        for _ in range(draw.randrange(1, 6))
    ]
    for correlation, number in asked.items():
        reply = MESSAGES[number].reply
        assert reply is not None
        kind = TYPE_OF[reply] if draw.random() < 0.85 else draw.choice([Type.ERROR, Type.ERROR, *_ANY])
        frames.append(mutator.frame(kind, correlation if draw.random() < 0.97 else draw.randrange(20)))
    draw.shuffle(frames)
    return frames


def _client_end_takes(
    session: ClientSession, mutator: Mutator, stream: bytes, asked: dict[int, Type]
) -> tuple[int, int]:
    returned: list[int] = []
    taken = violations = 0
    for piece in mutator.cut(stream):
        for event in session.receive(piece):
            match event:
                case Reply(correlation, message):
                    assert type(message) is MESSAGES[asked[correlation]].reply
                    check_message(TYPE_OF[type(message)], message)
                    returned.append(correlation)
                case Refused(correlation, error):
                    assert isinstance(error, BrokerError)
                    returned.append(correlation)
                case Push(message):
                    check_message(TYPE_OF[type(message)], message)
                case Dismissed():
                    assert session.receive(_WELCOMED) == []
                    violations += 1
                    continue
                case Welcomed(welcome):
                    check_message(Type.WELCOME, welcome)
            taken += 1
        if mutator.draw.random() < 0.1:
            returned += session.expired(5.0)
    if asked:
        returned += session.lost()
        assert sorted(returned) == sorted(asked), (returned, asked)
    return taken, violations
