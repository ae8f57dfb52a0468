"""The keeper: heartbeats whatever the event loop does, and the name of whoever keeps it."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from itertools import count

import pytest

from tests.worker.scripted import LIMITS, ScriptedBroker
from tq.core.errors import BrokerUnavailable, SessionUnknown
from tq.core.lease import DeliveryRef
from tq.protocol.connection import ServerConnection
from tq.protocol.messages import Heartbeat, Hello, Limits, Ok, Role, Started, Welcome
from tq.worker.identity import Identity
from tq.worker.keeper import Conversation, Heartbeats, LoopKeeper, Pulse, ThreadKeeper, block_finder


def identity() -> Identity:
    """An identity whose sessions are 11..., 22... and so on."""
    numbers = count(2)
    return Identity(lambda size: str(next(numbers) // 2).encode() * size)


def heartbeats(pulse: Pulse, block: tuple[str, str] | None = ("work", "work.py:7 in work")) -> Heartbeats:
    return Heartbeats(pulse, lambda: block)


def look(beats: Heartbeats, times: int) -> None:
    for _ in range(times):
        beats.look()


def test_a_loop_that_turns_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    pulse = Pulse()
    beats = heartbeats(pulse)

    for _ in range(20):
        look(beats, 4)
        pulse.beat([])
    beats.look()

    assert beats.heartbeat() == Heartbeat(20, None)
    assert not caplog.records


def test_a_heartbeat_names_some_of_the_handlers_that_are_stuck() -> None:
    pulse = Pulse()
    beats = heartbeats(pulse)

    pulse.beat(["deaf"] * 100)
    some = beats.heartbeat()
    pulse.beat([])

    assert some.stuck == ["deaf"] * 16
    assert beats.heartbeat().stuck == []


def test_after_over_a_second_without_a_turn_the_task_is_named_once_and_its_place_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pulse = Pulse()
    beats = heartbeats(pulse)
    pulse.beat([])

    look(beats, 5)
    before = beats.heartbeat()
    look(beats, 20)

    assert before == Heartbeat(1, None)
    assert beats.heartbeat() == Heartbeat(1, "work")
    (entry,) = caplog.records
    assert "work.py:7" in entry.getMessage()


def test_a_loop_that_turns_again_is_not_blocked_any_more(caplog: pytest.LogCaptureFixture) -> None:
    pulse = Pulse()
    beats = heartbeats(pulse)
    look(beats, 10)

    pulse.beat([])
    beats.look()

    assert beats.heartbeat() == Heartbeat(1, None)
    assert "turns again" in caplog.text


def test_a_loop_that_stands_still_outside_of_any_task_blames_none(caplog: pytest.LogCaptureFixture) -> None:
    beats = heartbeats(Pulse(), None)

    look(beats, 20)

    assert beats.heartbeat().blocked_by is None
    assert not caplog.records


async def test_whoever_keeps_the_loop_is_found_from_another_thread() -> None:
    find = block_finder(asyncio.get_running_loop(), threading.get_ident())
    found: list[tuple[str, str] | None] = []

    def from_outside() -> None:
        thread = threading.Thread(target=lambda: found.append(find()))
        thread.start()
        thread.join()

    async def handler() -> None:
        from_outside()

    await asyncio.create_task(handler(), name="mail.send")
    await asyncio.create_task(handler())

    assert [name for name, _ in filter(None, found)] == ["mail.send", handler.__qualname__]
    assert all("threading.py" in place for _, place in filter(None, found))


def converse(
    who: Identity | None = None, *, silent: bool = False, beats: Heartbeats | None = None
) -> tuple[Conversation, ServerConnection]:
    who = who or identity()
    conversation, server = Conversation(who, beats or heartbeats(Pulse()), 100.0), ServerConnection()
    (hello,) = [server.decode(frame) for frame in server.receive(conversation.start())]
    assert isinstance(hello.message, Hello)
    assert (hello.message.role, hello.message.session, hello.message.secret) == (Role.KEEPER, *who.credentials)
    if not silent:
        conversation.receive(bytes(server.reply(hello.correlation, Welcome(1, "s", 0, LIMITS))))
    return conversation, server


def beat(conversation: Conversation, server: ServerConnection, now: float) -> bool:
    """Let the keeper do what is due; answer its heartbeat; return whether there was one."""
    requests = [server.decode(frame) for frame in server.receive(conversation.due(now))]
    for request in requests:
        conversation.receive(bytes(server.reply(request.correlation, Ok())))
    return bool(requests)


def test_what_a_loop_that_stands_still_has_begun_is_marked_before_the_heartbeat_that_says_so() -> None:
    pulse = Pulse(lambda: [DeliveryRef(5, 0), DeliveryRef(5, 1)])
    conversation, server = converse(beats=heartbeats(pulse))
    said: list[list[object]] = []

    for now, turns in ((100.0, 1), (102.0, 1), (104.0, 0), (106.0, 0), (108.0, 1)):
        pulse.progress += turns
        requests = [server.decode(frame) for frame in server.receive(conversation.due(now))]
        conversation.receive(bytes(server.reply(requests[-1].correlation, Ok())))
        said.append([request.message for request in requests])

    marks = Started([DeliveryRef(5, 0), DeliveryRef(5, 1)])
    assert said == [
        [Heartbeat(1)],
        [Heartbeat(2)],
        [marks, Heartbeat(2)],
        [marks, Heartbeat(2)],
        [Heartbeat(3)],
    ]


def test_heartbeats_come_as_often_as_the_broker_asks() -> None:
    conversation, server = converse()

    beats = [beat(conversation, server, 100.0 + quarter / 4) for quarter in range(17)]

    assert [index / 4 for index, is_beat in enumerate(beats) if is_beat] == [0.0, 2.0, 4.0]


def test_a_broker_that_does_not_answer_a_heartbeat_ends_the_conversation() -> None:
    conversation, _ = converse()
    conversation.due(100.0)

    conversation.due(109.0)
    before = conversation.is_over
    conversation.due(110.0)

    assert (before, conversation.is_over) == (False, True)


def test_a_broker_that_says_no_welcome_ends_the_conversation() -> None:
    conversation, _ = converse(silent=True)

    assert conversation.due(109.0) == b""
    before = conversation.is_over
    conversation.due(110.0)

    assert (before, conversation.is_over) == (False, True)
    assert not conversation.was_open


def test_a_broker_that_does_not_know_the_worker_ends_the_conversation() -> None:
    conversation, server = converse()

    conversation.receive(bytes(server.dismiss(SessionUnknown("who?"))))

    assert conversation.is_over
    assert conversation.was_open
    assert conversation.due(200.0) == b""


def test_a_worker_that_is_another_by_now_ends_the_conversation_of_the_former() -> None:
    who = identity()
    conversation, server = converse(who)
    before = beat(conversation, server, 100.0)

    who.renew()

    assert (before, beat(conversation, server, 102.0)) == (True, False)
    assert conversation.is_over


def test_the_end_of_the_connection_ends_the_conversation() -> None:
    conversation, _ = converse()

    conversation.receive(b"")

    assert conversation.is_over


async def test_on_a_loop_alone_heartbeats_come_from_the_loop() -> None:
    broker = ScriptedBroker()
    keeper = LoopKeeper(broker, lambda: 0.9)
    pulse = Pulse()
    pulse.beat([])

    keeper.start(pulse, identity())
    await broker.until(lambda: len(broker.of(Heartbeat)) == 1)
    await keeper.stop()

    assert broker.of(Heartbeat) == [Heartbeat(1, None)]


class SocketBroker:
    """The other end of a keeper's sockets: answers every heartbeat, in a thread; keeps what was said."""

    def __init__(self, limits: Limits) -> None:
        self.beats: list[Heartbeat] = []
        self.sessions: list[bytes | None] = []
        self._limits = limits
        self._heard = threading.Condition()
        self._ends: list[socket.socket] = []

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._ends.append(ours)
        threading.Thread(target=self._serve, args=(ours,), daemon=True).start()
        return theirs

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        raise BrokerUnavailable("only by sockets")

    def wait_for_beats(self, number: int) -> None:
        """Block the caller, and with it its event loop, until so many heartbeats have come."""
        with self._heard:
            assert self._heard.wait_for(lambda: len(self.beats) >= number, 10)

    def cut(self) -> None:
        """End the connection that stands."""
        self._ends[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _serve(self, end: socket.socket) -> None:
        server = ServerConnection()
        while True:
            try:
                data = end.recv(65_536)
            except OSError:
                return
            if not data:
                return
            for frame in server.receive(data):
                request = server.decode(frame)
                if isinstance(request.message, Hello):
                    self.sessions.append(request.message.session)
                    answer: Welcome | Ok = Welcome(1, "s", 0, self._limits)
                else:
                    assert isinstance(request.message, Heartbeat)
                    answer = Ok()
                end.sendall(server.reply(request.correlation, answer))
                if isinstance(request.message, Heartbeat):
                    with self._heard:
                        self.beats.append(request.message)
                        self._heard.notify_all()


FAST = Limits(1_000_000, 1_000, 10, heartbeat_ms=10, lease_ms=50)


async def test_heartbeats_go_on_while_the_loop_is_blocked() -> None:
    broker = SocketBroker(FAST)
    keeper = ThreadKeeper(broker, lambda: 0.9)

    keeper.start(Pulse(), identity())
    broker.wait_for_beats(3)  # the loop of this test stands still meanwhile
    await keeper.stop()

    assert not keeper._thread.is_alive()
    broker.close()


async def test_a_keeper_reconnects_as_whoever_its_worker_is_by_then() -> None:
    broker = SocketBroker(FAST)
    who = identity()
    keeper = ThreadKeeper(broker, lambda: 0.9)

    keeper.start(Pulse(), who)
    broker.wait_for_beats(1)
    who.renew()
    broker.cut()
    broker.wait_for_beats(len(broker.beats) + 2)  # one may have come before the cut
    await keeper.stop()

    assert broker.sessions == [b"1" * 16, b"2" * 16]
    broker.close()


async def test_a_keeper_without_a_broker_stops_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    broker = ScriptedBroker()
    keeper = ThreadKeeper(broker, lambda: 0.9)

    keeper.start(Pulse(), identity())
    await keeper.stop()

    assert not keeper._thread.is_alive()
    assert not caplog.records
