"""One connection of a `SyncLink`: the shell between a blocking socket and a `ClientSession`.

There is no hidden thread.  Of the threads that wait, one reads from the socket and wakes
the others as their answers come; when it has its own, it leaves reading to one of them.

Invariants: at most one thread reads; everything that waits is told when the connection
ends.
"""

import copy
import socket
import threading
import time
from collections.abc import Iterable

import msgspec

from tq.client.attempts import NOT_WELCOMED, as_loss
from tq.client.watches import Watch, Watches
from tq.core.errors import BatchTooLarge, BrokerError, ConnectionLost, RequestTimeout, TransportError
from tq.core.limits import REQUEST_IDS_MAX
from tq.core.outcome import TaskResult
from tq.protocol.messages import GoingAway, Hello, Results, Unwait, Wait, Waited, Welcome
from tq.protocol.session import ClientSession, Dismissed, Push, Refused, Reply, SessionEvent, Welcomed

_READ_BYTES = 256 * 1024
# A socket that may block for ever would share that with its twin: for ever is an hour, again and again.
_FOREVER_S = 3_600.0


class SyncCall:
    """A request on its way: its answer or its error, once one has come."""

    def __init__(self, on: "SyncConnection", deadline: float | None) -> None:
        self.on = on
        self.deadline = deadline
        self.answer: msgspec.Struct | None = None
        self.error: Exception | None = None

    @property
    def has_news(self) -> bool:
        """Whether the request has ended."""
        return self.answer is not None or self.error is not None


class SyncWatch(Watch):
    """A watch, and the connection it is on."""

    def __init__(self, ids: Iterable[bytes], on: "SyncConnection") -> None:
        super().__init__(ids)
        self.on = on


class SyncConnection:
    """One connection, on a blocking socket; any thread may call any method."""

    def __init__(self, hello: Hello, connected: socket.socket) -> None:
        self.is_going_away = False
        self.has_answered = False
        self._session = ClientSession(hello)
        # Two objects for one socket, because a timeout belongs to the object and not to the call.
        self._reader = connected
        self._writer = connected.dup()
        # `_lock` guards all but the writer. Who holds `_writing` may take `_lock`, never the other way round.
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._welcome = SyncCall(self, None)
        self._calls: dict[int, SyncCall] = {}
        self._watches = Watches()
        # Those who wait while another thread reads.
        self._followers: dict[SyncCall | SyncWatch, threading.Condition] = {}
        self._is_read = False
        self._reason: Exception | None = None

    @property
    def is_usable(self) -> bool:
        """Whether new requests may be made here."""
        return self._session.is_open and not self.is_going_away

    def greet(self, deadline: float) -> Welcome:
        """Say hello, and return the answer.

        Raises:
            ConnectionLost: The broker does not want to talk now, or did not answer in time.
            BrokerError: It never will.
        """
        self._send(self._session.start(), deadline)
        try:
            self._wait(self._welcome, deadline)
        finally:
            if not self.is_usable:
                self.close(ConnectionLost(NOT_WELCOMED))
        if self._welcome.error is not None:
            raise self._welcome.error
        assert isinstance(self._welcome.answer, Welcome)
        return self._welcome.answer

    def call(self, message: msgspec.Struct, deadline: float | None) -> SyncCall:
        """Send a request.

        Raises:
            ConnectionLost: The connection takes no new ones; nothing was sent.
        """
        with self._lock:
            # Nobody listens to an idle connection: without a look it would be used after its end.
            if not self._is_read:
                self._read(0.0)
            self._check_usable()
            correlation, data = self._session.request(message, deadline)
            call = self._calls[correlation] = SyncCall(self, deadline)
        self._send(data, deadline)
        return call

    def finish(self, call: SyncCall) -> msgspec.Struct:
        """Wait for the answer to *call*, and return it."""
        self._wait(call, call.deadline)
        if call.error is not None:
            raise call.error
        assert call.answer is not None
        return call.answer

    def watch(self, watch: SyncWatch, deadline: float | None) -> None:
        """Take *watch* in, and ask the broker for what is new in it.

        Raises:
            ConnectionLost: The connection takes no new ones.
        """
        with self._lock:
            self._check_usable()
            fresh = self._watches.add(watch)
            watch.wake = lambda: self._wake(watch)
        chunks = [fresh[start : start + REQUEST_IDS_MAX] for start in range(0, len(fresh), REQUEST_IDS_MAX)]
        while chunks:
            ids = chunks.pop()
            try:
                # One at a time: the answers may be long, and somebody has to read them.
                self.finish(self.call(Wait(ids), deadline))
            except BrokerError as refusal:
                if isinstance(refusal, BatchTooLarge) and len(ids) > 1:
                    # The results that are there do not fit into one frame together.
                    half = len(ids) // 2
                    chunks += [ids[half:], ids[:half]]
                    continue
                with self._lock:
                    self._watches.failed(ids, refusal)
            except TransportError:
                # The watch has been told of it, or its own deadline has come.
                return

    def news(self, watch: SyncWatch, deadline: float | None) -> list[TaskResult]:
        """Wait until *watch* has news, or the deadline comes; return the results."""
        self._wait(watch, deadline)
        with self._lock:
            return watch.take() if watch.has_news else []

    def unwatch(self, watch: SyncWatch) -> None:
        """Forget *watch*."""
        with self._lock:
            idle = self._watches.remove(watch)
            starts = range(0, len(idle) if self.is_usable else 0, REQUEST_IDS_MAX)
            notices = [self._session.notify(Unwait(idle[start : start + REQUEST_IDS_MAX])) for start in starts]
        for notice in notices:
            self._send(notice, None)

    def close(self, reason: Exception) -> None:
        """End the connection for *reason*, at once."""
        with self._lock:
            self._end(reason)

    def abandon(self) -> None:
        """Let go of the connection of a parent process, without a word to the broker or to other threads."""
        self._reader.close()
        self._writer.close()

    # Waiting: one thread leads, that is reads, and the others follow. All of it under the lock.

    def _wait(self, waiter: SyncCall | SyncWatch, deadline: float | None) -> None:
        with self._lock:
            try:
                while not waiter.has_news and self._reason is None:
                    left_s = seconds_left(deadline)
                    if left_s <= 0:
                        self._expire()
                        return
                    if self._is_read:
                        self._follow(waiter, left_s)
                    else:
                        self._lead(left_s)
            finally:
                if not self._is_read:
                    self._let_another_lead()

    def _follow(self, waiter: SyncCall | SyncWatch, left_s: float) -> None:
        condition = self._followers[waiter] = threading.Condition(self._lock)
        try:
            condition.wait(left_s)
        finally:
            del self._followers[waiter]

    def _let_another_lead(self) -> None:
        for waiter, condition in self._followers.items():
            if not waiter.has_news:
                condition.notify()
                return

    def _wake(self, waiter: SyncCall | SyncWatch) -> None:
        condition = self._followers.get(waiter)
        if condition is not None:
            condition.notify()

    def _lead(self, left_s: float) -> None:
        self._is_read = True
        try:
            self._lock.release()
            try:
                data = self._receive(left_s)
            finally:
                self._lock.acquire()
        finally:
            self._is_read = False
            if self._reason is not None:
                self._reader.close()
        self._hear(data)

    def _read(self, left_s: float) -> None:
        self._hear(self._receive(left_s))

    def _receive(self, left_s: float) -> bytes | Exception | None:
        """Return what the socket has, None if that is nothing yet, or the way in which it ended."""
        try:
            self._reader.settimeout(left_s)
            data = self._reader.recv(_READ_BYTES)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError as error:
            return ConnectionLost(f"the connection to the broker ended: {error}")
        return data or ConnectionLost("the connection to the broker ended: it was closed there")

    def _hear(self, data: bytes | Exception | None) -> None:
        if isinstance(data, Exception):
            self._end(data)
        elif data is not None:
            for event in self._session.receive(data):
                self._take(event)
            self._end_if_idle()

    def _take(self, event: SessionEvent) -> None:
        match event:
            case Reply(correlation, message):
                self.has_answered = True
                if isinstance(message, Waited):
                    self._watches.ended(message.ended)
                    self._watches.unknown(message.unknown)
                self._answered(self._calls.pop(correlation), message)
            case Refused(correlation, error):
                self.has_answered = True
                self._failed(self._calls.pop(correlation), error)
            case Push(message):
                if isinstance(message, Results):
                    self._watches.ended(message.results)
                elif isinstance(message, GoingAway):
                    self.is_going_away = True
                    self._watches.all_failed(ConnectionLost(f"the broker is going away: {message.reason}"))
            case Welcomed(welcome):
                self._answered(self._welcome, welcome)
            case Dismissed(error):
                self._end(as_loss(error))

    def _answered(self, call: SyncCall, answer: msgspec.Struct) -> None:
        call.answer = answer
        self._wake(call)

    def _failed(self, call: SyncCall, error: Exception) -> None:
        call.error = error
        self._wake(call)

    def _expire(self) -> None:
        for correlation in self._session.expired(time.monotonic()):
            self._failed(self._calls.pop(correlation), RequestTimeout("the broker has not answered in time"))
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        # Nobody will listen to it again, so that the end which the broker announced would not be noticed.
        if self.is_going_away and not self._calls:
            self._end(ConnectionLost("the broker is going away"))

    def _check_usable(self) -> None:
        if not self.is_usable:
            raise copy.copy(self._reason) if self._reason else ConnectionLost("the broker is going away")

    def _send(self, data: bytearray, deadline: float | None) -> None:
        # A frame that went out in part has spoiled the stream: then all that wait are told, the sender too.
        with self._writing:
            try:
                self._writer.settimeout(seconds_left(deadline) or 1e-3)
                self._writer.sendall(data)
            except OSError as error:
                self.close(ConnectionLost(f"the connection to the broker ended: {error}"))
            if self._reason is not None:
                self._writer.close()

    def _end(self, reason: Exception) -> None:
        if self._reason is not None:
            return
        self._reason = reason
        self._session.lost()
        for call in (self._welcome, *self._calls.values()):
            if not call.has_news:
                self._failed(call, copy.copy(reason))
        self._calls.clear()
        self._watches.all_failed(reason)
        # A thread that is using the socket notices, and closes its side of it.
        try:
            self._reader.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if not self._is_read:
            self._reader.close()
        if self._writing.acquire(blocking=False):
            self._writer.close()
            self._writing.release()


def seconds_left(deadline: float | None) -> float:
    """Return how long until *deadline*, as a timeout of a socket: never negative, never for ever."""
    return _FOREVER_S if deadline is None else min(max(0.0, deadline - time.monotonic()), _FOREVER_S)
