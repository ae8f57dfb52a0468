"""One connection of many threads: one reads for all, and everyone gets what is theirs."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.client.scripted import CLOCK_MS, LIMITS, PATIENCE_S, Peer, ScriptedBroker, drop, refuse, silence
from tq.client.dialer import TcpDialer
from tq.client.sync_connection import SyncConnection, SyncWatch
from tq.core.errors import ConnectionLost, Overloaded, RequestTimeout
from tq.protocol import messages as m
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.messages import MAGIC, VERSIONS, Hello, Role, Type

HELLO = Hello(MAGIC, VERSIONS.first, Role.CLIENT)


@pytest.fixture
def connection(scripted: ScriptedBroker) -> Iterator[SyncConnection]:
    made = SyncConnection(HELLO, TcpDialer.of(scripted.url).connect_blocking(5.0))
    made.greet(time.monotonic() + PATIENCE_S)
    yield made
    made.close(ConnectionLost("the test is over"))


class Threads:
    """Calls at the same time; `outcomes` waits for all, and tells in their order what each came to."""

    def __init__(self) -> None:
        self._outcomes: dict[int, object] = {}
        self._threads: list[threading.Thread] = []

    def start(self, call: Callable[[], object]) -> None:
        number = len(self._threads)

        def run() -> None:
            try:
                self._outcomes[number] = call()
            except Exception as error:  # noqa: BLE001 - it is what the test looks at
                self._outcomes[number] = error

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def outcomes(self) -> list[object]:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert len(self._outcomes) == len(self._threads), "a thread still waits"
        return [self._outcomes[number] for number in range(len(self._threads))]


def until(condition: Callable[[], bool]) -> None:
    """Give the other threads a chance until they have come where the test wants them."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0)


def test_answers_in_any_order_find_their_threads(scripted: ScriptedBroker, connection: SyncConnection) -> None:
    held: list[tuple[Peer, Request]] = []
    scripted.next(Type.PING, *[lambda peer, request: held.append((peer, request))] * 20)
    calls = [connection.call(m.Ping(), None) for _ in range(20)]
    scripted.wait_for(Type.PING, 20)
    threads = Threads()
    for call in calls:
        threads.start(partial(connection.finish, call))

    for number, (peer, request) in reversed(list(enumerate(held))):
        peer.reply(request, m.Pong(str(number), 0))

    assert threads.outcomes() == [m.Pong(str(number), 0) for number in range(20)]


def test_when_the_reading_thread_has_its_answer_another_reads_on(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    held: list[tuple[Peer, Request]] = []
    scripted.next(Type.PING, *[lambda peer, request: held.append((peer, request))] * 2)
    calls = [connection.call(m.Ping(), None) for _ in range(2)]
    scripted.wait_for(Type.PING, 2)
    threads = Threads()
    threads.start(partial(connection.finish, calls[0]))
    until(lambda: connection._is_read)
    threads.start(partial(connection.finish, calls[1]))
    until(lambda: bool(connection._followers))

    held[0][0].reply(held[0][1], m.Pong("leader", 0))
    until(lambda: connection._is_read and not connection._followers)
    held[1][0].reply(held[1][1], m.Pong("follower", 0))

    assert threads.outcomes() == [m.Pong("leader", 0), m.Pong("follower", 0)]


def test_when_the_reading_thread_gives_up_another_reads_on(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    held: list[tuple[Peer, Request]] = []
    scripted.next(Type.PING, silence, lambda peer, request: held.append((peer, request)))
    calls = [connection.call(m.Ping(), time.monotonic() + 0.1), connection.call(m.Ping(), None)]
    scripted.wait_for(Type.PING, 2)
    threads = Threads()
    threads.start(partial(connection.finish, calls[0]))
    until(lambda: connection._is_read)
    threads.start(partial(connection.finish, calls[1]))

    until(lambda: calls[0].error is not None)
    held[0][0].reply(held[0][1], m.Pong("late", 0))

    first, second = threads.outcomes()
    assert isinstance(first, RequestTimeout)
    assert second == m.Pong("late", 0)


def test_all_threads_are_told_of_the_end(scripted: ScriptedBroker, connection: SyncConnection) -> None:
    scripted.next(Type.PING, *[silence] * 5)
    threads = Threads()
    for call in [connection.call(m.Ping(), None) for _ in range(5)]:
        threads.start(partial(connection.finish, call))
    watch = SyncWatch([b"x" * 16], connection)
    scripted.tasks[b"x" * 16] = (None, b"")  # type: ignore[assignment]
    connection.watch(watch, None)
    threads.start(lambda: connection.news(watch, None))

    scripted.drop_all()

    outcomes = threads.outcomes()
    assert [type(outcome) for outcome in outcomes] == [ConnectionLost] * 6
    assert len({id(outcome) for outcome in outcomes}) == 6
    assert not connection.is_usable


def test_closing_wakes_the_thread_that_reads(scripted: ScriptedBroker, connection: SyncConnection) -> None:
    scripted.next(Type.PING, silence)
    threads = Threads()
    threads.start(partial(connection.finish, connection.call(m.Ping(), None)))
    until(lambda: connection._is_read)

    connection.close(ConnectionLost("closed here"))

    [outcome] = threads.outcomes()
    assert isinstance(outcome, ConnectionLost)
    assert str(outcome) == "closed here"
    until(lambda: connection._reader.fileno() == connection._writer.fileno() == -1)


def test_an_idle_connection_that_has_ended_takes_no_request(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    scripted.stop()

    # Nothing was sent, so even what may not be repeated can go to the next connection.
    with pytest.raises(ConnectionLost):
        connection.call(m.Ping(), None)


def test_a_push_that_came_while_nobody_read_is_heard_before_the_next_request(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    scripted.push_all(m.GoingAway("restart"))

    with pytest.raises(ConnectionLost, match="going away"):
        connection.call(m.Ping(), None)


def test_a_connection_that_goes_away_ends_with_its_last_request(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    def go_away(peer: Peer, request: Request) -> None:
        peer.push(m.GoingAway("restart"))

    scripted.next(Type.PING, go_away)

    with pytest.raises(RequestTimeout):
        connection.finish(connection.call(m.Ping(), time.monotonic() + 0.1))

    assert connection._reader.fileno() == connection._writer.fileno() == -1


def test_a_result_is_pushed_to_every_thread_that_waits_for_it(
    scripted: ScriptedBroker, connection: SyncConnection
) -> None:
    task_id = b"x" * 16
    scripted.tasks[task_id] = (None, b"")  # type: ignore[assignment]
    watches = [SyncWatch([task_id], connection) for _ in range(5)]
    threads = Threads()
    for watch in watches:
        connection.watch(watch, None)
        threads.start(partial(connection.news, watch, None))

    scripted.complete(task_id)

    assert threads.outcomes() == [[scripted.results[task_id]]] * 5
    assert len(scripted.seen(Type.WAIT)) == 1


def test_a_refused_wait_fails_the_watch(scripted: ScriptedBroker, connection: SyncConnection) -> None:
    scripted.next(Type.WAIT, refuse(Overloaded("too many waits")))
    watch = SyncWatch([b"x" * 16], connection)

    connection.watch(watch, None)

    with pytest.raises(Overloaded, match="too many waits"):
        connection.news(watch, None)


def test_a_broker_that_does_not_read_ends_the_connection_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        connection = SyncConnection(HELLO, ours)
        scribe = threading.Thread(target=_welcome, args=(theirs,))
        scribe.start()
        connection.greet(time.monotonic() + PATIENCE_S)
        scribe.join()

        call = connection.call(m.Get([b"x" * 16] * 50_000), time.monotonic() + 0.1)

        with pytest.raises(ConnectionLost, match="timed out"):
            connection.finish(call)
        assert not connection.is_usable


def _welcome(theirs: socket.socket) -> None:
    conn = ServerConnection()
    [frame] = conn.receive(theirs.recv(1_000))
    request = conn.decode(frame)
    theirs.sendall(conn.reply(request.correlation, m.Welcome(VERSIONS.first, "deaf", CLOCK_MS, LIMITS)))


@pytest.mark.parametrize("action", [silence, drop])
def test_a_greeting_that_fails_leaves_no_socket_behind(
    scripted: ScriptedBroker, action: Callable[[Peer, Request], None]
) -> None:
    scripted.next(Type.HELLO, action)
    connection = SyncConnection(HELLO, TcpDialer.of(scripted.url).connect_blocking(5.0))

    with pytest.raises(ConnectionLost):
        connection.greet(time.monotonic() + 0.1)

    assert connection._reader.fileno() == connection._writer.fileno() == -1
