"""A broker that does what a test tells it to: the real protocol over wires in memory.

It welcomes everyone, and answers what a broker answers; what a worker says is kept in
`said`.  Nothing takes time: bytes pass at the next turn of the loop.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from tq.app.middleware import Middleware
from tq.app.registry import Handler, Registry
from tq.core.errors import BrokerError, BrokerUnavailable
from tq.core.ids import compose
from tq.core.lease import DeliveryRef
from tq.core.outcome import FailedAttempt
from tq.core.task import RECORD_FORMAT, TaskRecord, TaskSpec
from tq.core.times import Timestamp
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.messages import (
    MESSAGES,
    Deliver,
    Goodbye,
    Heartbeat,
    Hello,
    Limits,
    Ok,
    Ping,
    Pong,
    Role,
    Settle,
    Settled,
    Subscribe,
    Welcome,
)

T = TypeVar("T", bound=msgspec.Struct)
T_function = TypeVar("T_function", bound=Callable[..., object])

LIMITS = Limits(1024 * 1024, 256 * 1024, 1_000, 2_000, 10_000)
PATIENCE_S = 10.0


class MemoryTransport(asyncio.Transport):
    """One end of a wire; what is written arrives at the other end at the next turn."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.other: MemoryTransport | None = None
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._is_closed and self.other is not None:
            asyncio.get_running_loop().call_soon(self.other.arrive, bytes(data))

    def arrive(self, data: bytes) -> None:
        if not self._is_closed:
            self.protocol.data_received(data)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        for end in (self, self.other):
            if end is not None and not end._is_closed:
                end._is_closed = True
                asyncio.get_running_loop().call_soon(end.protocol.connection_lost, None)


class ScriptedBroker:
    """A `Dialer`, and the broker that it reaches.

    ``is_absent``: nothing answers.  ``holds``: these messages are kept without an answer,
    for `answer`.  ``refuses``: what is answered to messages of a type instead, once each.
    """

    def __init__(self) -> None:
        self.is_absent = False
        self.holds: set[type[msgspec.Struct]] = set()
        self.refuses: dict[type[msgspec.Struct], BrokerError] = {}
        self.lost: list[DeliveryRef] = []
        self.said: list[msgspec.Struct] = []
        self.connections = 0
        self.worker: BrokerEnd | None = None
        self._changed = asyncio.Event()

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        if self.is_absent:
            raise BrokerUnavailable("nobody is there")
        ours, theirs = MemoryTransport(BrokerEnd(self)), MemoryTransport(factory())
        ours.other, theirs.other = theirs, ours
        ours.protocol.connection_made(ours)
        theirs.protocol.connection_made(theirs)
        return theirs

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        raise BrokerUnavailable("only by asyncio")

    def heard(self, end: "BrokerEnd", request: Request) -> None:
        self.said.append(request.message)
        if isinstance(request.message, Hello) and request.message.role is Role.WORKER:
            self.worker = end
            self.connections += 1
        refusal = self.refuses.pop(type(request.message), None)
        if refusal is not None:
            end.refuse(request.correlation, refusal)
        elif type(request.message) not in self.holds:
            end.answer(request)
        self._changed.set()

    def deliver(self, token: int, *records: msgspec.Raw, alone: bool = False) -> None:
        """Push tasks to the worker."""
        self.push(Deliver(token, alone, list(records)))

    def push(self, message: msgspec.Struct) -> None:
        assert self.worker is not None
        self.worker.push(message)

    def push_and_dismiss(self, message: msgspec.Struct, error: BrokerError) -> None:
        """Push, and end the conversation, in one read of the worker."""
        assert self.worker is not None
        self.worker.push_and_dismiss(message, error)

    def cut(self) -> None:
        """End the worker's connection without a word."""
        assert self.worker is not None
        self.worker.transport.abort()

    def of(self, kind: type[T]) -> list[T]:
        """All that was said of one kind, in order."""
        return [message for message in self.said if isinstance(message, kind)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the worker will say."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def next(self, kind: type[T]) -> T:
        """Wait for the worker to say one more of a kind."""
        before = len(self.of(kind))
        await self.until(lambda: len(self.of(kind)) > before)
        return self.of(kind)[before]

    @property
    def done(self) -> dict[tuple[int, int], object]:
        """The results that came, decoded, by (token, index)."""
        return {
            (done.token, done.index): None if done.result is None else msgspec.msgpack.decode(done.result)
            for settle in self.of(Settle)
            for done in settle.done
        }

    @property
    def failed(self) -> dict[tuple[int, int], FailedAttempt]:
        """The failures that came, by (token, index)."""
        return {(each.token, each.index): each for settle in self.of(Settle) for each in settle.failed}


class BrokerEnd(asyncio.Protocol):
    """The broker's end of one connection."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self._broker = broker
        self._connection = ServerConnection()
        self._kept: list[Request] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for frame in self._connection.receive(data):
            request = self._connection.decode(frame)
            if request.correlation:
                self._kept.append(request)
            self._broker.heard(self, request)

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.ended()

    def answer_kept(self) -> None:
        """Answer all that was held back."""
        for request in list(self._kept):
            self.answer(request)

    def answer(self, request: Request) -> None:
        if request.correlation:
            self._kept.remove(request)
            self._write(self._connection.reply(request.correlation, self._reply_to(request.message)))

    def refuse(self, correlation: int, error: BrokerError) -> None:
        self._kept = [request for request in self._kept if request.correlation != correlation]
        self._write(self._connection.refuse(correlation, error))

    def push(self, message: msgspec.Struct) -> None:
        self._write(self._connection.push(message))

    def dismiss(self, error: BrokerError) -> None:
        self._write(self._connection.dismiss(error))

    def push_and_dismiss(self, message: msgspec.Struct, error: BrokerError) -> None:
        self._write(self._connection.push(message) + self._connection.dismiss(error))

    def _write(self, frame: bytes | bytearray) -> None:
        self.transport.write(frame)

    def _reply_to(self, message: msgspec.Struct) -> msgspec.Struct:
        match message:
            case Hello():
                lost, self._broker.lost = self._broker.lost, []
                return Welcome(1, "scripted", 0, LIMITS, resumed=False, lost=lost)
            case Settle():
                return Settled()
            case Ping():
                return Pong("scripted", 0)
            case Subscribe() | Heartbeat() | Goodbye():
                return Ok()
            case _:
                raise AssertionError(f"a test has no use for {MESSAGES!r} of {message!r}")


_numbers: Iterator[int] = iter(range(1, 1_000_000))


def record(name: str, *args: object, **spec: object) -> msgspec.Raw:
    """A task as a broker delivers it; *spec* are fields of its `TaskSpec`, or ``attempts``."""
    attempts = spec.pop("attempts", 0)
    payload = msgspec.msgpack.encode((args, {}))
    task = TaskRecord(
        RECORD_FORMAT,
        compose(Timestamp(1), next(_numbers)),
        TaskSpec(name, **spec),  # type: ignore[arg-type]
        payload,
        enqueued_at=1,
        attempts=attempts,  # type: ignore[arg-type]
    )
    return msgspec.Raw(msgspec.msgpack.encode(task))


def registry(middleware: Iterable[Middleware] = (), /, **functions: Callable[..., object]) -> Registry:
    """A registry of tasks called as the keywords are."""
    made = Registry(middleware)
    for name, function in functions.items():
        made.add(Handler(function, TaskSpec(name), soft_timeout_s=getattr(function, "soft_timeout_s", None)))
    return made


def soft(seconds: float) -> Callable[[T_function], T_function]:
    """Give a function of a `registry` a soft timeout."""

    def give(function: T_function) -> T_function:
        function.soft_timeout_s = seconds  # type: ignore[attr-defined]
        return function

    return give
