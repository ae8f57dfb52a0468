"""The way of a `SyncClient` to its broker: one connection a process, shared by its threads.

The surface is that of `tq.client.async_link`.

Invariant: a child process never uses, nor ends, the connection of its parent.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from tq.client.attempts import Attempts, failures_after, spell_seconds, trouble_of
from tq.client.dialer import Dialer
from tq.client.sync_connection import SyncCall, SyncConnection, SyncWatch, seconds_left
from tq.core.errors import BrokerUnavailable, ConnectionLost, UsageError
from tq.core.outcome import TaskResult
from tq.protocol.messages import Hello, Welcome


class _Process:
    """What a link has in one process."""

    def __init__(self) -> None:
        self.connecting = threading.Lock()
        self.attempts: Attempts | None = None
        self.current: SyncConnection | None = None
        self.welcome: Welcome | None = None
        self.failures = 0


class SyncLink:
    """Keeps one connection to a broker in each process that uses it.

    *on_welcome* is told of each new connection's `Welcome`.
    """

    def __init__(
        self,
        dialer: Dialer,
        hello: Hello,
        *,
        connect_timeout_s: float,
        entropy: Callable[[int], bytes],
        on_welcome: Callable[[Welcome], None],
    ) -> None:
        self._dialer = dialer
        self._hello = hello
        self._connect_timeout_s = connect_timeout_s
        self._entropy = entropy
        self._on_welcome = on_welcome
        self._processes: dict[int, _Process] = {}
        self._is_closed = False

    def now(self) -> float:
        """Return the time by which deadlines are meant."""
        return time.monotonic()

    @property
    def welcome(self) -> Welcome | None:
        """The broker's `Welcome`, if there is a connection."""
        here = self._here()
        return here.welcome if here.current is not None and here.current.is_usable else None

    def ready(self, deadline: float | None) -> Welcome:
        """Return the broker's `Welcome`, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        self._connected(deadline)
        welcome = self._here().welcome
        assert welcome is not None
        return welcome

    def begin(self, message: msgspec.Struct, deadline: float | None, after: SyncCall | None = None) -> SyncCall:
        """Send a request, connecting first if there is no connection; `finish` waits for the answer.

        *after* is one that was sent before: the broker gets the two in this order.

        Raises:
            BrokerUnavailable: No connection could be made in time.
            ConnectionLost: That of *after* is of no further use; nothing was sent.
            FrameTooLarge: The broker would not read it.
        """
        if after is not None:
            return after.on.call(message, deadline)
        while True:
            try:
                return self._connected(deadline).call(message, deadline)
            except ConnectionLost:
                continue  # it ended since it was looked at, and nothing was sent

    def finish(self, call: SyncCall) -> msgspec.Struct:
        """Return the reply to a request.

        Raises:
            BrokerError: The broker refused it.
            ConnectionLost: The connection ended first.
            RequestTimeout: The deadline came first.
        """
        return call.on.finish(call)

    def watch(self, ids: Iterable[bytes], deadline: float | None) -> SyncWatch:
        """Ask to be told when tasks end, connecting first if there is no connection.

        Raises:
            BrokerUnavailable: No connection could be made in time.
        """
        wanted = list(ids)
        while True:
            connection = self._connected(deadline)
            watch = SyncWatch(wanted, connection)
            try:
                connection.watch(watch, deadline)
            except ConnectionLost:
                continue
            return watch

    def news(self, watch: SyncWatch, deadline: float | None) -> list[TaskResult]:
        """Return the results that have come, at least one unless the deadline or the last one came first.

        Raises:
            ConnectionLost: The connection ended; what is missing must be watched anew.
            BrokerError: The broker refused to tell.
        """
        return watch.on.news(watch, deadline)

    def unwatch(self, watch: SyncWatch) -> None:
        """Stop waiting; to be called once for each watch."""
        watch.on.unwatch(watch)

    def pause(self, after_ms: int | None, deadline: float) -> bool:
        """Wait as long as a refusal asks for, and tell whether trying again makes sense then."""
        if after_ms is None or self.now() + after_ms / 1_000 >= deadline:
            return False
        time.sleep(after_ms / 1_000)
        return True

    def close(self) -> None:
        """Close the connection; what waits on it ends with `ConnectionLost`. Safe to call twice."""
        self._is_closed = True
        connection = self._here().current
        if connection is not None:
            connection.close(ConnectionLost("the client was closed"))

    def _here(self) -> _Process:
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            # Right after a fork. The locks of the parent may be held by threads that are not here: they are left alone.
            here = self._processes.setdefault(pid, _Process())
            for other in [other for other in self._processes if other != pid]:
                parent = self._processes.pop(other, None)
                if parent is not None and parent.current is not None:
                    parent.current.abandon()
        return here

    def _connected(self, deadline: float | None) -> SyncConnection:
        here = self._here()
        connection = here.current
        if connection is None or not connection.is_usable or self._is_closed:
            connection = self._reconnected(here, deadline)
        return connection

    def _reconnected(self, here: _Process, deadline: float | None) -> SyncConnection:
        began = self.now()
        timeout_s = self._connect_timeout_s if deadline is None else min(self._connect_timeout_s, deadline - began)
        attempts = Attempts(began, max(0.0, timeout_s), here.failures, self._entropy)
        # One thread connects for all; the others wait their turn, and find a connection when it comes.
        if not here.connecting.acquire(timeout=seconds_left(attempts.deadline)):
            raise (here.attempts or attempts).unavailable(spell_seconds(attempts.timeout_s))
        try:
            if self._is_closed:
                raise UsageError("the client is closed")
            if here.current is not None:
                if here.current.is_usable:
                    return here.current
                here.failures = failures_after(
                    here.failures,
                    has_answered=here.current.has_answered,
                    is_going_away=here.current.is_going_away,
                )
                here.current = None
            here.attempts = attempts
            return self._connect(here, attempts)
        finally:
            here.connecting.release()

    def _connect(self, here: _Process, attempts: Attempts) -> SyncConnection:
        while True:
            try:
                time.sleep(attempts.wait(self.now()))
            except BrokerUnavailable:
                here.failures = 0
                raise
            if self._is_closed:
                raise UsageError("the client is closed")
            try:
                connection = SyncConnection(
                    self._hello, self._dialer.connect_blocking(max(seconds_left(attempts.deadline), 1e-3))
                )
                welcome = connection.greet(attempts.deadline)
            except (BrokerUnavailable, ConnectionLost) as error:
                attempts.failed(trouble_of(error, self._dialer))
                continue
            here.welcome, here.current = welcome, connection
            self._on_welcome(welcome)
            return connection
