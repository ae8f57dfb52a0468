"""A worker of few words: it runs the app's handlers in the calling thread, by the real protocol.

`tq.worker` stands above `tq.app`, so the app's own tests do with this.
"""

import asyncio
import contextvars
import os
import socket
import traceback
from collections import deque
from types import TracebackType
from typing import Self

import msgspec

from tq.app.app import App
from tq.app.context import TaskContext, enter
from tq.core.outcome import Done, FailedAttempt, Reject, TaskFailure
from tq.core.task import TaskRecord
from tq.core.worker import WorkerInfo
from tq.protocol.messages import (
    MAGIC,
    VERSIONS,
    Deliver,
    Goodbye,
    Hello,
    QueueWeight,
    Role,
    Settle,
    Subscribe,
    Window,
)
from tq.protocol.session import ClientSession, Push, Reply, Welcomed

_record = msgspec.msgpack.Decoder(TaskRecord)


class WireWorker:
    """One worker session on *queues*; `serve` runs tasks."""

    def __init__(self, app: App, *queues: str) -> None:
        names = [handler.name for handler in app.registry]
        info = WorkerInfo("wire", "localhost", os.getpid(), "none", 1, names)
        hello = Hello(MAGIC, VERSIONS.first, Role.WORKER, "", os.urandom(16), os.urandom(16), info)
        self._app = app
        self._socket: socket.socket = app.dialer().connect_blocking(5)
        self._socket.settimeout(20)
        self._session = ClientSession(hello)
        self._deliveries: deque[Deliver] = deque()
        self._replies = 0
        self._socket.sendall(self._session.start())
        while self._session.welcome is None:
            self._read()
        self._ask(Subscribe([QueueWeight(queue, 1) for queue in queues or ("default",)]))
        self._socket.sendall(self._session.notify(Window(1, 1_000_000)))

    def serve(self, tasks: int = 1) -> None:
        """Run and settle so many tasks."""
        for _ in range(tasks):
            while not self._deliveries:
                self._read()
            delivery = self._deliveries.popleft()
            record = _record.decode(delivery.records[0])
            self._ask(contextvars.copy_context().run(self._outcome, delivery.token, record))

    def _outcome(self, token: int, record: TaskRecord) -> Settle:
        spec = record.spec
        handler = self._app.registry.get(spec.name)
        assert handler is not None
        enter(TaskContext(record.id, spec.name, spec.queue, record.attempts + 1, 0, 1, 0, 0.0, "wire"))
        try:
            args, kwargs = handler.decode(record.payload, spec.codec)
            value = handler.function(*args, **kwargs)
            if handler.is_async:
                value = asyncio.run(value)
            result = handler.encode_result(value, spec.codec) if spec.result_ttl_ms else None
        except Exception as error:  # noqa: BLE001  # the boundary of a task
            failure = TaskFailure(type(error).__name__, str(error), traceback.format_exc())
            reject = isinstance(error, (Reject, *handler.reject_on))
            return Settle([], [FailedAttempt(token, 0, failure, reject=reject)])
        return Settle([Done(token, 0, result)])

    def _ask(self, message: msgspec.Struct) -> None:
        expected = self._replies + 1
        _, data = self._session.request(message, None)
        self._socket.sendall(data)
        while self._replies < expected:
            self._read()

    def _read(self) -> None:
        data = self._socket.recv(65_536)
        assert data, "the broker closed the connection"
        for event in self._session.receive(data):
            match event:
                case Welcomed():
                    pass
                case Push(Deliver() as delivery):
                    self._deliveries.append(delivery)
                case Reply():
                    self._replies += 1
                case _:
                    raise AssertionError(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._ask(Goodbye())
        self._socket.close()
