"""What the tests of the engine stand on: rows in memory that count reads, and a driver with a clock of its own.

A `Driver` plays broker and workers: each command is a batch, dispatched, sealed and
committed at once, after which the invariants are checked.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

import msgspec
import pytest
from sortedcontainers import SortedDict

from tq.core.errors import BrokerError
from tq.core.ids import compose
from tq.core.limits import SCAN_BYTES_MAX
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.core.queue import QueueView
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskRecord, TaskSpec, TaskView
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo
from tq.engine import commands as c
from tq.engine.changes import Changes, Ending
from tq.engine.engine import Engine, EngineSettings
from tq.engine.rows import READY, decode_record
from tq.testing.invariants import check_invariants

A = TypeVar("A")

START = 1_800_000_000_000
SECRET = b"s" * 16
FAILURE = TaskFailure("ValueError", "no")


class Rows:
    """Ordered bytes in memory; counts what is read."""

    def __init__(self, rows: Mapping[bytes, bytes] | None = None) -> None:
        self.rows: SortedDict[bytes, bytes] = SortedDict(rows or {})
        self.gets = 0
        self.scans = 0
        self.rows_read = 0
        self.starts: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        self.gets += 1
        return self.rows.get(key)

    def scan(self, start: bytes, end: bytes, limit: int, bytes_max: int = SCAN_BYTES_MAX) -> list[tuple[bytes, bytes]]:
        self.scans += 1
        self.starts.append(start)
        found: list[tuple[bytes, bytes]] = []
        size = 0
        for key in self.rows.irange(start, end, inclusive=(True, False)):
            value = self.rows[key]
            found.append((key, value))
            size += len(key) + len(value)
            if len(found) >= limit or size >= bytes_max:
                break
        self.rows_read += len(found)
        return found

    def apply(self, writes: Mapping[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def of(self, letter: bytes) -> dict[bytes, bytes]:
        return {key: value for key, value in self.rows.items() if key[:1] == letter}

    def forget_counts(self) -> None:
        self.gets = self.scans = self.rows_read = 0
        self.starts.clear()

    @property
    def reads(self) -> int:
        """Everything that was asked for, and every row that came."""
        return self.gets + self.scans + self.rows_read


class Held(msgspec.Struct, frozen=True):
    """A task as a worker got it."""

    token: int
    index: int
    record: TaskRecord
    alone: bool

    @property
    def place(self) -> tuple[int, int]:
        return self.token, self.index

    @property
    def id(self) -> bytes:
        return self.record.id


class Driver:
    """An engine over rows, with time that passes when told to."""

    def __init__(
        self,
        *,
        rows: Rows | None = None,
        settings: EngineSettings | None = None,
        draw: Callable[[], float] = lambda: 0.0,
        checked: bool = True,
    ) -> None:
        self.rows = rows or Rows()
        self.settings = settings or EngineSettings()
        self.now = START
        self.checked = checked
        self.inbox: dict[bytes, list[Held]] = {}
        self.lost: dict[bytes, list[tuple[int, int]]] = {}
        self.endings: list[Ending] = []
        self.last: Changes
        self._draw = draw
        self._made = 0
        self._turns: dict[bytes, int] = {}
        self.restart()

    # ------------------------------------------------------------------ batches

    def restart(self) -> None:
        """Begin anew over the rows."""
        self.engine = Engine(self.rows, self.settings, self._draw)
        changes, self.now = self.engine.restore(self.now)
        self.commit(changes)

    def commit(self, changes: Changes) -> None:
        self.rows.apply(changes.writes)
        self.last = changes
        for delivery in changes.deliveries:
            self.inbox.setdefault(delivery.session, []).extend(
                Held(delivery.token, index, decode_record(record), delivery.alone)
                for index, record in enumerate(delivery.records)
            )
        for revocation in changes.revocations:
            self.lost.setdefault(revocation.session, []).extend(revocation.tasks)
        assert changes.promised or not changes.endings, "an end is told that a crash may undo"
        self.endings += changes.endings
        if self.checked:
            check_invariants(self.rows, self.engine)

    def do(self, command: c.Command[A], *, dispatch: bool = True) -> A:
        """Make *command* a batch of its own."""
        changes = self.engine.changes()
        answer = self.engine.apply(command, self.now, changes)
        self.finish(changes, dispatch=dispatch)
        return answer

    def finish(self, changes: Changes, *, dispatch: bool = True) -> None:
        more = dispatch and self.engine.dispatch(changes)
        self.engine.seal(self.now, changes)
        self.commit(changes)
        if more:
            self.dispatch()

    def dispatch(self) -> None:
        self.finish(self.engine.changes())

    def refused(self, command: c.Command[A], kind: type[BrokerError]) -> BrokerError:
        """Have *command* refused, and make sure that it changed nothing at all."""
        before = dump(self.engine)
        changes = self.engine.changes()
        with pytest.raises(kind) as caught:
            self.engine.apply(command, self.now, changes)
        assert type(caught.value) is kind
        assert changes.writes == {}
        assert dump(self.engine) == before
        return caught.value

    # ------------------------------------------------------------------ clients

    def new_id(self) -> bytes:
        self._made += 1
        return compose(Timestamp(self.now), self._made)

    def frame(self, count: int = 1, payload: bytes = b"", spec: TaskSpec | None = None) -> c.Enqueue:
        """Return a frame of *count* equal tasks."""
        tasks = [NewTask(self.new_id(), 0, payload) for _ in range(count)]
        return c.Enqueue(self.new_id(), [spec or a_spec()], tasks)

    def enqueue(self, count: int = 1, *, payload: bytes = b"", dispatch: bool = True, **fields: object) -> list[bytes]:
        """Enqueue *count* equal tasks, in as many frames as that takes; returns their ids."""
        ids: list[bytes] = []
        most = max(1, min(1_000, 400_000 // (len(payload) + 300)))
        while len(ids) < count:
            frame = self.frame(min(count - len(ids), most), payload, a_spec(**fields))
            assert self.do(frame, dispatch=dispatch) == []
            ids += [task.id for task in frame.tasks]
        return ids

    def get(self, task_id: bytes) -> TaskView | None:
        return self.do(c.Get([task_id]))[0]

    def view(self, task_id: bytes) -> TaskView:
        view = self.get(task_id)
        assert view is not None, "there is no such task"
        return view

    def state(self, task_id: bytes) -> str:
        view = self.get(task_id)
        return view.state.value if view else "unknown"

    def queue(self, name: str = "q") -> QueueView:
        return self.do(c.ListQueues(name))[0][0]

    # ------------------------------------------------------------------ workers

    def worker(
        self,
        name: str = "w",
        *,
        queues: tuple[str, ...] | dict[str, int] = ("q",),
        tasks: tuple[str, ...] = ("t",),
        window: int = 10,
        window_bytes: int = 1 << 30,
        held: list[tuple[int, list[int], list[int]]] | None = None,
    ) -> bytes:
        """Connect a worker and subscribe it; returns its session.  The same name is the same session."""
        session = name.encode().ljust(16, b"_")
        self.connect(name, tasks, held or [])
        weights = queues.items() if isinstance(queues, dict) else ((queue, 1) for queue in queues)
        self.do(c.Subscribe(session, list(weights), isinstance(queues, dict)))
        self.do(c.SetWindow(session, window, window_bytes))
        return session

    def connect(self, name: str, tasks: tuple[str, ...], held: list[tuple[int, list[int], list[int]]]) -> c.Registered:
        info = WorkerInfo(name, "host", 1, "async", 1, list(tasks))
        return self.do(c.Register(name.encode().ljust(16, b"_"), SECRET, info, held))

    def beat(self, session: bytes, blocked_by: str | None = None, *, turns: bool = True, dispatch: bool = True) -> None:
        """Send a heartbeat, before which the worker's loop has turned, or has not."""
        self._turns[session] = self._turns.get(session, 0) + turns
        self.do(c.Beat(session, self._turns[session], blocked_by), dispatch=dispatch)

    def take(self, session: bytes) -> list[Held]:
        """Return what *session* got since last asked."""
        return self.inbox.pop(session, [])

    def start(self, session: bytes, *held: Held) -> None:
        rest = [each.place for each in held]
        while rest:
            rest = self.do(c.MarkStarted(session, rest))

    def release(self, session: bytes, *held: Held) -> None:
        rest = [each.place for each in held]
        while rest:
            rest = self.do(c.Release(session, rest))

    def leave(self, session: bytes) -> None:
        """Let *session* leave in as many batches as that takes."""
        while not self.do(c.Leave(session)):
            pass

    def complete(self, session: bytes, *held: Held, result: bytes | None = None) -> list[tuple[int, int]]:
        return self.settle(c.Settle(session, [Done(*each.place, result) for each in held], []))

    def fail(
        self, session: bytes, *held: Held, retry_after_ms: int | None = None, reject: bool = False
    ) -> list[tuple[int, int]]:
        failed = [FailedAttempt(*each.place, FAILURE, retry_after_ms, reject) for each in held]
        return self.settle(c.Settle(session, [], failed))

    def settle(self, command: c.Settle) -> list[tuple[int, int]]:
        """Settle in as many batches as that takes; returns what is lost."""
        lost: list[tuple[int, int]] = []
        rest: c.Settle | None = command
        while rest is not None:
            settled = self.do(rest)
            lost, rest = lost + settled.lost, settled.rest
        return lost

    def die(self, *sessions: bytes) -> None:
        """Let *sessions* fall silent for the length of a lease while all others beat."""
        self.now += self.settings.lease_ms
        for worker in self.do(c.ListWorkers(), dispatch=False)[0]:
            if worker.session not in sessions:
                self.beat(worker.session, dispatch=False)
        self.tick()

    # ------------------------------------------------------------------ time

    def tick(self, after_ms: int = 0) -> None:
        """Let time pass, and let the engine do all that it brings."""
        self.now += after_ms
        for _ in range(3_000):
            self.do(c.Tick())
            if self.engine.next_tick(self.now) > self.now:
                return
        raise AssertionError("the engine always has something more to do")


def a_spec(**fields: object) -> TaskSpec:
    """Return a spec of task ``t`` in queue ``q``, tried again at once, with *fields* changed."""
    plain = TaskSpec("t", "q", retry=RetryPolicy(backoff_ms=0, backoff_max_ms=0))
    return msgspec.structs.replace(plain, **fields)


def bytes_of(writes: Mapping[bytes, bytes | None]) -> int:
    """Return how large a change is."""
    return sum(len(key) + len(value or b"") for key, value in writes.items())


def ready_seqs(rows: Rows) -> list[int]:
    return [int.from_bytes(key[-8:], "big") for key in rows.of(READY)]


def dump(thing: object, seen: dict[int, int] | None = None) -> object:
    """Return all that *thing* holds as values to compare; rows and functions are no part of it."""
    seen = {} if seen is None else seen
    if thing is None or isinstance(thing, int | float | str | bytes | Enum):
        return thing
    if callable(thing) or isinstance(thing, Rows):
        return type(thing).__name__
    if id(thing) in seen:
        return f"see {seen[id(thing)]}"
    seen[id(thing)] = len(seen)
    match thing:
        case dict():
            return [(dump(key, seen), dump(value, seen)) for key, value in thing.items()]
        case set() | frozenset():
            return sorted(
                repr(dump(each, {})) if isinstance(each, bytes | int | str) else type(each).__name__ for each in thing
            )
        case list() | tuple():
            return [dump(each, seen) for each in thing]
        case _:
            pass
    if hasattr(thing, "__iter__") and not hasattr(thing, "__slots__"):
        return [dump(each, seen) for each in thing]
    names = [
        *getattr(thing, "__dict__", {}),
        *getattr(type(thing), "__slots__", ()),
        *getattr(type(thing), "__struct_fields__", ()),
    ]
    return [type(thing).__name__, *((name, dump(getattr(thing, name), seen)) for name in names)]
