"""Heartbeats: the second connection of a worker, which says that the process lives.

It is written by a thread, so that a handler that blocks the event loop costs no leases;
with each heartbeat goes how far the loop has come, and who keeps it from turning, so
that a process that hangs can be told from one that is busy.  What a loop that stands still
has begun is marked as started by the thread: it may not come to say so itself, and what is
not marked is given to others when the loop stands still for long.

Invariant: the thread shares nothing with the event loop but `Pulse` and `Identity`, and
it waits for nothing without a limit.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, cast

from tq import __version__
from tq.client.dialer import Dialer
from tq.core.errors import BrokerUnavailable, ConfigError
from tq.core.lease import DeliveryRef
from tq.core.limits import STUCK_MAX
from tq.protocol.messages import MAGIC, VERSIONS, Heartbeat, Hello, Role, Started
from tq.protocol.reconnect import backoff
from tq.protocol.session import ClientSession, Dismissed
from tq.worker.identity import Identity

_log = logging.getLogger(__name__)

POLL_S = 0.25
"""How often the keeper looks whether the loop turns; one that does moves its pulse as often."""

# Looks without a change, one after the other: over a second.  Counting looks, not time, keeps a
# process that was suspended as a whole, keeper included, from being taken for a blocked loop.
_LOOKS_BLOCKED = 5
_CONNECT_S = 5.0
_ANSWER_S = 10.0
_READ_BYTES = 65_536


class Pulse:
    """What the event loop shows to its keeper: that it turns, what it has begun, and what it has given up in vain.

    ``stuck`` are the names of given up tasks whose handlers still run.  *begun* names the
    tasks that run and may not be marked as started; it is called from the keeper's thread.
    """

    def __init__(self, begun: Callable[[], list[DeliveryRef]] = list) -> None:
        self.progress = 0
        self.stuck: list[str] = []
        self.begun = begun

    def beat(self, stuck: list[str]) -> None:
        """Note that the loop has turned, and what is stuck by now."""
        self.progress += 1
        self.stuck = stuck


FindBlock = Callable[[], tuple[str, str] | None]
"""Returns the name of the task that the loop is in, and the place in its code; None if it is in none."""


class Heartbeats:
    """Decides what the next heartbeat says.  No clock: `look` is called every `POLL_S`."""

    def __init__(self, pulse: Pulse, find_block: FindBlock) -> None:
        self._pulse = pulse
        self._find_block = find_block
        self._seen = -1
        self._looks = 0
        self._blocked_by: str | None = None

    def look(self) -> None:
        """See whether the loop has turned since the last look; warn, once, of a task that blocks it."""
        progress = self._pulse.progress
        if progress != self._seen:
            if self._blocked_by is not None:
                _log.warning("the event loop turns again; task %s had kept it", self._blocked_by)
            self._seen, self._looks, self._blocked_by = progress, 0, None
            return
        self._looks += 1
        if self._looks < _LOOKS_BLOCKED or self._blocked_by is not None:
            return
        block = self._find_block()
        if block is not None:
            self._blocked_by, place = block
            _log.warning(
                "task %s has kept the event loop from turning for over a second, at %s: "
                "nothing else runs in this worker until it lets go; make it await, or a plain def",
                self._blocked_by,
                place,
            )

    def begun(self) -> list[DeliveryRef]:
        """Return what is to be marked as started, because the loop has not turned between two looks."""
        return self._pulse.begun() if self._looks else []

    def heartbeat(self) -> Heartbeat:
        """Return what to say now."""
        return Heartbeat(max(self._seen, 0), self._blocked_by, self._pulse.stuck[:STUCK_MAX])


def block_finder(loop: asyncio.AbstractEventLoop, thread_id: int) -> FindBlock:
    """Return what finds the task that *loop* is in, from another thread than its own, *thread_id*."""

    def find() -> tuple[str, str] | None:
        task = asyncio.current_task(loop)
        frame = sys._current_frames().get(thread_id)  # noqa: SLF001  # the documented way to another thread's stack
        if task is None or frame is None:
            return None
        code = frame.f_code
        name = task.get_name()
        if name.startswith("Task-"):  # asyncio's own: a task that a handler started
            name = getattr(task.get_coro(), "__qualname__", name)
        return name, f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"

    return find


class Conversation:
    """One connection of a keeper, without I/O: the caller sends what it returns, until it is over."""

    def __init__(self, identity: Identity, beats: Heartbeats, now: float) -> None:
        self._identity = identity
        self._credentials = identity.credentials
        hello = Hello(
            MAGIC,
            VERSIONS.first,
            Role.KEEPER,
            f"tq-worker/{__version__}",
            *self._credentials,
            version_max=VERSIONS.last,
        )
        self._session = ClientSession(hello)
        self._beats = beats
        self._opens_by = now + _ANSWER_S
        self._look_at = now
        self._beat_at = now
        self.is_over = False

    @property
    def was_open(self) -> bool:
        """Whether the broker knows this worker."""
        return self._session.welcome is not None

    def start(self) -> bytes | bytearray:
        """Return the first bytes."""
        return self._session.start()

    def receive(self, data: bytes) -> None:
        """Take in what the broker sent; b"" when it closed the connection."""
        self.is_over |= not data
        for event in self._session.receive(data):
            if isinstance(event, Dismissed):
                _log.debug("the heartbeats' connection was closed: %s", event.error)
                self.is_over = True

    def due(self, now: float) -> bytes | bytearray:
        """Look after the loop, and return what to send now, perhaps nothing; call it every `POLL_S`."""
        if now >= self._look_at:
            self._look_at = now + POLL_S
            self._beats.look()
        # A broker that came back without its last moments may know the former session again: nobody
        # works in it any more, and heartbeats would keep its leases for ever.
        self.is_over |= self._identity.credentials is not self._credentials
        welcome = self._session.welcome
        if welcome is None:
            self.is_over |= now >= self._opens_by
            return b""
        if self._session.expired(now):
            self.is_over = True
        if self.is_over or now < self._beat_at:
            return b""
        self._beat_at = now + welcome.limits.heartbeat_ms / 1_000
        # Before the heartbeat that says that the loop stands still: from then on the broker may take the rest away.
        begun = self._beats.begun()
        marks = self._session.notify(Started(begun)) if begun else b""
        _, frame = self._session.request(self._beats.heartbeat(), now + _ANSWER_S)
        return marks + frame


class Keeper(Protocol):
    """Sends heartbeats from `start`, within the running loop, to `stop`."""

    def start(self, pulse: Pulse, identity: Identity) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End."""


class ThreadKeeper:
    """Heartbeats from a thread of their own, over a blocking socket."""

    def __init__(self, dialer: Dialer, draw: Callable[[], float]) -> None:
        self._dialer = dialer
        self._draw = draw
        self._stopping = threading.Event()

    def start(self, pulse: Pulse, identity: Identity) -> None:
        """Start the thread."""
        self._identity = identity
        self._beats = Heartbeats(pulse, block_finder(asyncio.get_running_loop(), threading.get_ident()))
        # A daemon: it may be waiting for a broker that is not there when the process ends.
        self._thread = threading.Thread(target=self._run, name="tq-keeper", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Tell the thread to end, which it does within `POLL_S` unless it is just connecting."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 2 * POLL_S)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            failures = 1 if self._converse() else failures + 1
            self._wait(backoff(failures, self._draw()))

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._stopping.wait(min(left, POLL_S)):
            self._beats.look()

    def _converse(self) -> bool:
        """Keep one connection to its end, or the keeper's; return whether the broker knew the worker."""
        try:
            connection = self._dialer.connect_blocking(_CONNECT_S)
        except (BrokerUnavailable, ConfigError):  # The link, which needs a broker too, says it.
            return False
        conversation = Conversation(self._identity, self._beats, time.monotonic())
        with connection:
            connection.settimeout(POLL_S)
            try:
                connection.sendall(conversation.start())
                while not (conversation.is_over or self._stopping.is_set()):
                    if frame := conversation.due(time.monotonic()):
                        connection.sendall(frame)
                    try:
                        conversation.receive(connection.recv(_READ_BYTES))
                    except TimeoutError:
                        continue
            except OSError as error:
                _log.debug("the heartbeats' connection ended: %s", error)
        return conversation.was_open


class LoopKeeper:
    """Heartbeats from the event loop itself: for a simulation, where one loop is all there is."""

    def __init__(self, dialer: Dialer, draw: Callable[[], float]) -> None:
        self._dialer = dialer
        self._draw = draw

    def start(self, pulse: Pulse, identity: Identity) -> None:
        """Begin, as a task of the running loop."""
        self._loop = asyncio.get_running_loop()
        self._identity = identity
        # A loop that looks after itself never finds itself blocked.
        self._beats = Heartbeats(pulse, lambda: None)
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        failures = 0
        while True:
            failures = 1 if await self._converse() else failures + 1
            await asyncio.sleep(backoff(failures, self._draw()))

    async def _converse(self) -> bool:
        wire = _Wire(Conversation(self._identity, self._beats, self._loop.time()))
        try:
            transport = await self._dialer.connect(lambda: wire)
        except (BrokerUnavailable, ConfigError):  # The link, which needs a broker too, says it.
            return False
        try:
            while not wire.conversation.is_over:
                transport.write(wire.conversation.due(self._loop.time()))
                await asyncio.sleep(POLL_S)
        finally:
            transport.abort()
        return wire.conversation.was_open


class _Wire(asyncio.Protocol):
    """The connection of a `LoopKeeper`."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self.conversation.start())

    def data_received(self, data: bytes) -> None:
        self.conversation.receive(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.conversation.receive(b"")
