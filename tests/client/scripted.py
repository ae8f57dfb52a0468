"""A broker that does as it is told: the real broker's side of the protocol on a real socket.

It keeps tasks in a dictionary, answers by a few simple rules, and can be told what to do
instead with the next request of a kind: drop the connection, refuse, keep silent.
"""

import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Self

import msgspec

from tq.core.errors import BrokerError, RemoteProtocolError
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.task import TaskSpec, TaskView
from tq.core.times import Timestamp
from tq.protocol import messages as m
from tq.protocol.connection import Request, ServerConnection
from tq.protocol.messages import VERSIONS, Type

CLOCK_MS = 1_700_000_000_000
LIMITS = m.Limits(1 << 20, 256 * 1024, 1_000, 2_000, 10_000)
PATIENCE_S = 10.0


class Peer:
    """One connection to the broker."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.conn = ServerConnection()
        self.waiting: set[bytes] = set()
        # Requests are answered by this peer's thread, pushes come from others.
        self.lock = threading.RLock()
        self.is_dropped = False

    def send(self, data: bytes | bytearray) -> None:
        with self.lock:
            try:
                self.socket.sendall(data)
            except OSError:
                pass  # the client is gone: a test that cares looks at the client

    def reply(self, request: Request, message: msgspec.Struct) -> None:
        with self.lock:
            self.send(self.conn.reply(request.correlation, message))

    def refuse(self, request: Request, error: BrokerError) -> None:
        with self.lock:
            self.send(self.conn.refuse(request.correlation, error))

    def push(self, message: msgspec.Struct) -> None:
        with self.lock:
            self.send(self.conn.push(message))

    def drop(self) -> None:
        """End the connection; what has been read and not answered yet never is."""
        self.is_dropped = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


Action = Callable[[Peer, Request], None]


class ScriptedBroker:
    """Listens on a port of its own; `stop` and `start` take it down and bring it back there."""

    def __init__(self) -> None:
        self.tasks: dict[bytes, tuple[TaskSpec, bytes]] = {}
        self.results: dict[bytes, TaskResult] = {}
        self.frames: dict[bytes, m.Enqueued] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.limits = LIMITS
        self._script: defaultdict[Type, deque[Action]] = defaultdict(deque)
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._seen = threading.Condition(self._lock)
        self._port = 0
        self._listener: socket.socket | None = None

    # Life.

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"tq://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop_all()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._threads.clear()

    def drop_all(self) -> None:
        with self._lock:
            for peer in self._peers:
                peer.drop()

    # What a test tells it.

    def next(self, kind: Type, *actions: Action) -> None:
        """Meet the next requests of *kind* with *actions*, one each."""
        self._script[kind].extend(actions)

    def complete(self, task_id: bytes, result: bytes = b"\xc0") -> None:
        with self._lock:
            ended = TaskResult(task_id, TaskState.COMPLETED, Timestamp(CLOCK_MS), result, attempts=1)
            self.results[task_id] = ended
            for peer in self._peers:
                if task_id in peer.waiting:
                    peer.waiting.discard(task_id)
                    peer.push(m.Results([ended]))

    def push_all(self, message: msgspec.Struct) -> None:
        with self._lock:
            for peer in self._peers:
                peer.push(message)

    def seen(self, kind: Type) -> list[msgspec.Struct]:
        """The requests of *kind* so far."""
        with self._lock:
            return [request.message for request in self.requests if request.kind is kind]

    def wait_for(self, kind: Type, count: int = 1) -> None:
        """Block until *count* requests of *kind* have come."""
        with self._seen:
            assert self._seen.wait_for(lambda: len(self.seen(kind)) >= count, PATIENCE_S), f"no {kind.name} came"

    # How it works.

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                peer = Peer(connected)
                self._peers.append(peer)
                self.connections += 1
            self._run(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        with peer.socket:
            while True:
                try:
                    data = peer.socket.recv(1 << 18)
                    for frame in peer.conn.receive(data):
                        if not peer.is_dropped:
                            self._meet(peer, peer.conn.decode(frame))
                except RemoteProtocolError:
                    peer.send(peer.conn.last_words)
                    break
                except OSError:
                    break
                if not data or peer.is_dropped or peer.conn.state.value == "closing":
                    break
            with self._lock:
                self._peers.remove(peer)
                with peer.lock:
                    peer.conn.ended()

    def _meet(self, peer: Peer, request: Request) -> None:
        with self._lock:
            script = self._script[request.kind]
            action = script.popleft() if script else self._answer
            # Seen before it is answered: a test that has the answer may count on it.
            self.requests.append(request)
            self._seen.notify_all()
        action(peer, request)

    def _answer(self, peer: Peer, request: Request) -> None:
        with self._lock:
            match request.message:
                case m.Hello():
                    peer.reply(request, m.Welcome(VERSIONS.first, "scripted", CLOCK_MS, self.limits))
                case m.Ping():
                    peer.reply(request, m.Pong("scripted", CLOCK_MS))
                case m.Enqueue() as frame:
                    peer.reply(request, self.taken(frame))
                case m.Wait(ids):
                    ended = [self.results[task_id] for task_id in ids if task_id in self.results]
                    unknown = [task_id for task_id in ids if task_id not in self.tasks]
                    peer.waiting.update(set(ids) - {result.id for result in ended} - set(unknown))
                    peer.reply(request, m.Waited(ended, unknown))
                case m.Unwait(ids):
                    peer.waiting.difference_update(ids)
                case m.Get(ids):
                    peer.reply(request, m.Tasks([self._view(task_id) for task_id in ids]))
                case m.Cancel(ids):
                    refused = [
                        m.RefusedCancel(task_id, "task_not_found", "no such task")
                        for task_id in ids
                        if task_id not in self.tasks
                    ]
                    peer.reply(request, m.Cancelled(refused))
                case m.ListTasks(limit=limit, cursor=cursor):
                    at = int(cursor or b"0")
                    page = list(self.tasks)[at : at + limit]
                    more = str(at + limit).encode() if at + limit < len(self.tasks) else None
                    peer.reply(request, m.Tasks([self._view(task_id) for task_id in page], more))
                case m.ControlDead(ids=ids):
                    peer.reply(request, m.Affected(len(ids) or 7))
                case m.ControlQueue():
                    peer.reply(request, m.Affected(len(self.tasks)))
                case m.ListQueues():
                    peer.reply(request, m.Queues([]))
                case m.ListWorkers():
                    peer.reply(request, m.Workers([]))
                case other:
                    raise AssertionError(f"no client sends {other}")

    def taken(self, frame: m.Enqueue) -> m.Enqueued:
        """Enqueue *frame*, or say again what was said to it."""
        with self._lock:
            if frame.frame_id not in self.frames:
                refused = []
                for index, task in enumerate(frame.tasks):
                    if task.id in self.tasks:
                        refused.append(m.RefusedEnqueue(index, "duplicate_task", "exists"))
                    else:
                        self.tasks[task.id] = (frame.specs[task.spec_index], task.payload)
                self.frames[frame.frame_id] = m.Enqueued(refused)
            return self.frames[frame.frame_id]

    def _view(self, task_id: bytes) -> TaskView | None:
        if task_id not in self.tasks:
            return None
        spec, payload = self.tasks[task_id]
        return TaskView(id=task_id, name=spec.name, queue=spec.queue, state=TaskState.READY, payload_bytes=len(payload))


# What it can be told to do instead of answering.


def drop(peer: Peer, request: Request) -> None:
    """End the connection; the request had no effect."""
    peer.drop()


def silence(peer: Peer, request: Request) -> None:
    """Never answer."""


def refuse(error: BrokerError) -> Action:
    return lambda peer, request: peer.refuse(request, error)


def welcome(limits: m.Limits) -> Action:
    return lambda peer, request: peer.reply(request, m.Welcome(VERSIONS.first, "scripted", CLOCK_MS, limits))


def take_and_drop(broker: ScriptedBroker) -> Action:
    """Enqueue, and end the connection before the answer."""

    def action(peer: Peer, request: Request) -> None:
        assert isinstance(request.message, m.Enqueue)
        broker.taken(request.message)
        peer.drop()

    return action
