"""The engine against a naive model: random commands, time, restarts and lost batches; every answer compared.

The model is a dict of tasks and a list of what was committed.  It does not predict which
worker gets a task; it checks that each hand-out is the first in line for who got it.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.engine.harness import FAILURE, SECRET, START, Held, Rows, a_spec, bytes_of
from tq.core.ids import compose
from tq.core.outcome import Done, FailedAttempt
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskSpec, TaskView
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo
from tq.engine import commands as c, custody, dispatch, flows, operations, passage, settle
from tq.engine.changes import Changes
from tq.engine.engine import Engine, EngineSettings
from tq.engine.rows import DEAD, TASK, decode_record
from tq.testing.invariants import check_invariants

EXAMPLES = int(os.environ.get("TQ_MODEL_EXAMPLES", "120"))
STEPS = 80
QUEUES = ("a", "b")
NAMES = ("t", "u")
PRIORITIES = (0, 128, 255)
SETTLE_BYTES = 700
# Room for the heads of some three tasks: each that is read for one flow is given up by another.
SETTINGS = EngineSettings(
    lease_ms=10_000, grace_ms=1_000, frame_memory_ms=60_000, dead_retention_ms=50_000, heads_bytes_max=500
)


class Pick(Random):
    """The small choices of a rule, from one number: hypothesis draws few bytes and gets far."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed_shown = seed

    def __repr__(self) -> str:
        return f"Pick({self._seed_shown})"

    def yes(self) -> bool:
        return self.random() < 0.5


PICKS = st.integers(0, 0xFFFF).map(Pick)


@dataclasses.dataclass(frozen=True)
class Known:
    """A task as the model knows it; ``order`` is its place in the line, ``place`` its lease, over at ``back_at``.

    ``abandoned``: how many workers died while it waited there, as far as the engine remembers it.
    """

    id: bytes
    spec: TaskSpec
    order: int
    state: str = "ready"
    due: int = 0
    attempts: int = 0
    losses: int = 0
    generation: int = 1
    session: bytes = b""
    place: tuple[int, int] = (0, 0)
    started: int = 0
    alone: bool = False
    purged: bool = False
    expires: int = 0
    abandoned: int = 0
    back_at: int = 0

    @property
    def may_be_suspect(self) -> bool:
        return self.losses > 0 or self.abandoned > flows.ABANDONED_MAX


class Model:
    """What must survive a restart: tasks by id, answered frames, paused queues, worker sessions."""

    def __init__(self) -> None:
        self.tasks: dict[bytes, Known] = {}
        self.frames: dict[bytes, list[int]] = {}
        self.paused: set[str] = set()
        self.sessions: set[bytes] = set()
        self.orders = 0

    def snapshot(self) -> "Model":
        copy = Model()
        copy.tasks, copy.frames = dict(self.tasks), dict(self.frames)
        copy.paused, copy.sessions, copy.orders = set(self.paused), set(self.sessions), self.orders
        return copy

    def next_order(self) -> int:
        self.orders += 1
        return self.orders

    def put(self, task: Known, **changes: object) -> Known:
        self.tasks[task.id] = changed = dataclasses.replace(task, **changes)  # type: ignore[arg-type]
        return changed

    def of(self, state: str) -> list[Known]:
        return [task for task in self.tasks.values() if task.state == state]

    def held(self, session: bytes) -> list[Known]:
        return [task for task in self.of("running") if task.session == session]

    def at(self, session: bytes, place: tuple[int, int]) -> Known | None:
        return next((task for task in self.held(session) if task.place == place), None)

    def end(self, task: Known, state: str, now: int, **changes: object) -> None:
        ttl = SETTINGS.dead_retention_ms if state == "dead" else task.spec.result_ttl_ms
        if ttl:
            self.put(task, state=state, expires=now + ttl, session=b"", purged=False, **changes)
        else:
            del self.tasks[task.id]

    def date(self, token: int, now: int) -> None:
        """A delivery has its time from *now*."""
        delivery = [task for task in self.of("running") if task.place[0] == token]
        for task in delivery:
            timeout_ms = max(each.spec.timeout_ms for each in delivery)
            self.put(task, back_at=now + timeout_ms + SETTINGS.grace_ms)

    def back(self, task: Known) -> None:
        """A task comes back to its place in the line, or is gone with its purged queue."""
        if task.purged:
            del self.tasks[task.id]
        else:
            self.put(task, state="ready", session=b"", started=0, alone=False)

    def lose(self, task: Known, now: int) -> None:
        if not task.started:
            self.back(self.put(task, abandoned=task.abandoned + 1))
        elif task.losses + 1 >= task.spec.max_losses and task.alone:
            self.end(task, "dead", now, losses=task.losses + 1)
        else:
            self.back(self.put(task, losses=task.losses + 1))

    def fail(self, task: Known, now: int, retry_after_ms: int | None, *, reject: bool) -> None:
        attempts = task.attempts + 1
        if reject or attempts >= task.spec.retry.max_attempts:
            self.end(task, "dead", now, attempts=attempts)
            return
        wait = task.spec.retry.backoff_ms * 2 ** (attempts - 1) if retry_after_ms is None else retry_after_ms
        wait = min(wait, task.spec.retry.backoff_max_ms) if retry_after_ms is None else wait
        self.put(task, state="scheduled", due=now + wait, attempts=attempts, session=b"", purged=False,
                 started=0, order=self.next_order())  # fmt: skip

    def pass_time(self, now: int, seen: dict[bytes, int]) -> None:
        """All that the time brings, at once."""
        for task in sorted(self.of("scheduled"), key=lambda task: (task.due, task.order)):
            if task.due <= now:
                self.put(task, state="ready", order=self.next_order())
        for task in list(self.tasks.values()):
            if task.expires and -(-task.expires // 1_000) * 1_000 <= now:
                del self.tasks[task.id]
        for task in self.of("running"):
            if task.started and task.started + task.spec.timeout_ms + SETTINGS.grace_ms <= now:
                self.lose(task, now)
            elif not task.started and task.back_at <= now:
                self.back(task)
        for session in [each for each in self.sessions if seen[each] + SETTINGS.lease_ms <= now]:
            for task in self.held(session):
                self.lose(task, now)
            self.sessions.discard(session)


@dataclasses.dataclass
class Worker:
    """A worker as its own process knows it."""

    session: bytes
    queues: tuple[str, ...]
    names: tuple[str, ...]
    window: int
    connected: bool = True
    held: list[Held] = dataclasses.field(default_factory=list)
    started: set[tuple[int, int]] = dataclasses.field(default_factory=set)


class EngineMachine(RuleBasedStateMachine):
    """Rules are what clients, workers, time and power failures do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.model = Model()
        self.rows = Rows()
        self.workers: dict[bytes, Worker] = {}
        self.seen: dict[bytes, int] = {}
        self.tokens: set[int] = set()
        self.made = 0
        self.ids: list[bytes] = []
        self.sent: list[c.Enqueue] = []
        self.waiting: set[bytes] = set()
        # What a power failure may undo: the rows and the model before each batch since the last synced one.
        self.unsynced: list[tuple[dict[bytes, bytes], Model]] = []
        self.before = self.model.snapshot()
        self.start()
        self.connect_worker(0, QUEUES, NAMES, 3)

    # ------------------------------------------------------------------ the machinery

    def start(self) -> None:
        self.engine = Engine(self.rows, SETTINGS, lambda: 0.0)
        changes, self.now = self.engine.restore(self.now)
        self.commit(changes)

    def new_id(self) -> bytes:
        self.made += 1
        return compose(Timestamp(self.now), self.made)

    def run(self, command: c.Command[c.A], *, dispatch: bool = True) -> c.A:
        changes = self.engine.changes()
        answer = self.engine.apply(command, self.now, changes)
        self.finish(changes, dispatch=dispatch)
        return answer

    def finish(self, changes: Changes, *, dispatch: bool = True) -> None:
        self.pending = changes, dispatch

    def settle_batch(self) -> None:
        """Dispatch, seal and commit what the rule has applied, after the model was told of it."""
        changes, dispatch = self.pending
        more = dispatch and self.engine.dispatch(changes)
        self.engine.seal(self.now, changes)
        self.commit(changes)
        for _ in range(100):
            if not more:
                break
            changes = self.engine.changes()
            more = self.engine.dispatch(changes)
            self.engine.seal(self.now, changes)
            self.commit(changes)
        assert not more, "a dispatch without an end"
        if dispatch:
            self.nobody_waits_for_nothing()

    def commit(self, changes: Changes) -> None:
        a_death_is_promised(changes)
        if changes.promised:
            self.unsynced.clear()
        else:
            self.unsynced.append((dict(self.rows.rows), self.before))
        self.rows.apply(changes.writes)
        for delivery in changes.deliveries:
            assert delivery.token not in self.tokens, "a token issued twice"
            self.tokens.add(delivery.token)
            held = [
                Held(delivery.token, index, decode_record(record), delivery.alone)
                for index, record in enumerate(delivery.records)
            ]
            for each in held:
                self.handed_out(delivery.session, each)
            self.model.date(delivery.token, self.now)
            if self.workers[delivery.session].connected:
                self.workers[delivery.session].held += held
        for revocation in changes.revocations:
            worker = self.workers[revocation.session]
            worker.held = [each for each in worker.held if each.place not in revocation.tasks]
        for ending in changes.endings:
            assert ending.result.id in self.waiting
            self.waiting.discard(ending.result.id)
            known = self.model.tasks.get(ending.result.id)
            assert known is None or known.state == ending.result.state.value
        self.before = self.model.snapshot()
        check_invariants(self.rows, self.engine)

    def handed_out(self, session: bytes, held: Held) -> None:
        """A task may go to a worker that wants it, has room, and none that it serves comes before."""
        task, worker, model = self.model.tasks[held.id], self.workers[session], self.model
        record = held.record
        assert task.state == "ready"
        assert (task.attempts, task.losses, task.generation) == (record.attempts, record.losses, record.generation)
        in_line = self.in_line(worker)
        assert task in in_line, "handed to a worker that does not serve it"
        assert held.alone or not task.losses, "a suspect and others"
        assert not held.alone or task.may_be_suspect, "alone without a reason"
        before = [each for each in in_line if _turn(each) < _turn(task) and not each.may_be_suspect]
        assert not before, "handed out before its turn"
        mine = model.held(session)
        assert len(mine) < worker.window, "more than the window"
        assert not (held.alone and mine), "alone beside others"
        assert not any(each.alone for each in mine), "beside one that is to run alone"
        model.put(task, state="running", session=session, place=held.place, started=0, alone=held.alone)

    def in_line(self, worker: Worker) -> list[Known]:
        return [
            task
            for task in self.model.of("ready")
            if task.spec.queue in worker.queues
            and task.spec.name in worker.names
            and task.spec.queue not in self.model.paused
        ]

    def nobody_waits_for_nothing(self) -> None:
        """After a dispatch no worker has room for a task that waits for it."""
        for worker in self.workers.values():
            if not worker.connected or worker.session not in self.model.sessions:
                continue
            mine = self.model.held(worker.session)
            if len(mine) >= worker.window or any(each.alone for each in mine):
                continue
            in_line = self.in_line(worker)
            if any(each.may_be_suspect for each in in_line):
                assert mine or not self.connected_alone(worker), "a suspect waits for a worker that holds nothing"
            else:
                assert not in_line, "a task waits for a worker with room"

    def connected_alone(self, worker: Worker) -> bool:
        return sum(each.connected for each in self.workers.values()) == 1

    # ------------------------------------------------------------------ clients

    @rule(pick=PICKS, count=st.integers(1, 12))
    def enqueue(self, pick: Pick, count: int) -> None:
        specs = [self.some_spec(pick) for _ in range(pick.randint(1, 3))]
        ids = [self.new_id() for _ in range(count)] + (self.ids[-3:] if pick.random() < 0.2 else [])
        tasks = [NewTask(task_id, pick.randrange(len(specs)), b"p" * count) for task_id in ids]
        frame = c.Enqueue(self.new_id(), specs, tasks)
        self.sent.append(frame)
        self.send(frame)

    @precondition(lambda self: self.sent)
    @rule(pick=PICKS)
    def resend(self, pick: Pick) -> None:
        self.send(pick.choice(self.sent[-5:]))

    def some_spec(self, pick: Pick) -> TaskSpec:
        backoff_ms = pick.choice([0, 1_500])
        return a_spec(
            name=pick.choice(NAMES),
            queue=pick.choice(QUEUES),
            priority=pick.choice(PRIORITIES),
            result_ttl_ms=pick.choice([0, 3_000, 30_000]),
            max_losses=pick.choice([1, 2]),
            retry=RetryPolicy(max_attempts=pick.choice([1, 2, 3]), backoff_ms=backoff_ms),
            # Shorter and longer than the lease of a silent worker.
            timeout_ms=pick.choice([5_000, 20_000]),
        )

    def send(self, frame: c.Enqueue) -> None:
        model = self.model
        if frame.frame_id not in model.frames and self.now - int.from_bytes(frame.frame_id[:6]) > 60_000:
            return
        refused = [index for index, _, _ in self.run(frame)]
        if frame.frame_id not in model.frames:
            expected = []
            for index, task in enumerate(frame.tasks):
                if task.id in model.tasks or task.id in self.limbo():
                    expected.append(index)
                else:
                    model.tasks[task.id] = Known(task.id, frame.specs[task.spec_index], model.next_order())
                    self.ids.append(task.id)
            model.frames[frame.frame_id] = expected
        assert refused == model.frames[frame.frame_id]
        self.settle_batch()

    def limbo(self) -> set[bytes]:
        """Purged tasks whose rows are not yet removed: their ids are taken, though nothing else shows them."""
        return {key[1:] for key in self.rows.of(b"I")} - self.model.tasks.keys()

    @precondition(lambda self: self.ids)
    @rule(pick=PICKS, queue=st.sampled_from(QUEUES), act=st.sampled_from(["cancel", "pause", "resume", "purge"]))
    def administer(self, pick: Pick, queue: str, act: str) -> None:
        """One rule for what is rare, so that most steps are work."""
        match act:
            case "cancel":
                self.cancel(pick)
            case "purge":
                self.purge(queue)
            case _:
                self.pause(queue, act == "pause")

    @precondition(lambda self: self.ids)
    @rule(pick=PICKS)
    def wait(self, pick: Pick) -> None:
        task_id = pick.choice(self.ids[-40:])
        ended, unknown = self.run(c.Wait(1, [task_id]))
        task = self.model.tasks.get(task_id)
        state = task.state if task else "unknown"
        assert [each.state.value for each in ended] == ([state] if state in {"completed", "dead", "cancelled"} else [])
        assert unknown == ([] if task else [task_id])
        if not ended and not unknown:
            self.waiting.add(task_id)
        self.settle_batch()

    def cancel(self, pick: Pick) -> None:
        ids = sorted({pick.choice(self.ids[-40:]) for _ in range(3)})
        refused = {task_id for task_id, _, _ in self.run(c.Cancel(ids))}
        for task_id in ids:
            task = self.model.tasks.get(task_id)
            assert (task_id in refused) is not bool(task and task.state in {"ready", "scheduled"})
            if task and task_id not in refused:
                self.model.end(task, "cancelled", self.now)
        self.settle_batch()

    def pause(self, queue: str, paused: bool) -> None:
        if self.has_queue(queue):
            self.run(c.PauseQueue(queue, paused))
            (self.model.paused.add if paused else self.model.paused.discard)(queue)
            self.settle_batch()

    def purge(self, queue: str) -> None:
        if not self.has_queue(queue):
            return
        mine = [task for task in self.model.tasks.values() if task.spec.queue == queue]
        waiting = [task for task in mine if task.state in {"ready", "scheduled"}]
        assert self.run(c.PurgeQueue(queue)) == len(waiting)
        for task in waiting:
            del self.model.tasks[task.id]
        for task in mine:
            if task.state == "running":
                self.model.put(task, purged=True)
        self.settle_batch()

    @precondition(lambda self: self.model.of("dead"))
    @rule(queue=st.sampled_from(QUEUES), forget=st.booleans(), pick=PICKS)
    def act_on_dead(self, queue: str, forget: bool, pick: Pick) -> None:
        if not self.has_queue(queue):
            return
        dead = sorted((t for t in self.model.of("dead") if t.spec.queue == queue), key=lambda t: t.order)
        ids = [task.id for task in pick.sample(dead, pick.randint(0, len(dead)))]
        command = (c.ForgetDead if forget else c.RedriveDead)(queue, ids)
        chosen = [self.model.tasks[task_id] for task_id in ids] or dead
        assert self.run(command, dispatch=False) == len(chosen)
        self.finish_operations()
        # The dead letter is in the order of death, which the rows know and the model does not.
        places = {key: int.from_bytes(key[-8:], "big") for key in ids}
        for task in chosen if ids else self.as_redriven(chosen):
            if forget:
                del self.model.tasks[task.id]
            else:
                self.model.put(task, state="ready", order=self.model.next_order(), attempts=0, losses=0,
                               generation=task.generation + 1, expires=0, alone=False, started=0)  # fmt: skip
        assert len(places) == len(ids)
        self.before = self.model.snapshot()
        self.unsynced.clear()
        check_invariants(self.rows, self.engine)

    def finish_operations(self) -> None:
        changes, _ = self.pending
        self.engine.seal(self.now, changes)
        self.rows.apply(changes.writes)
        for _ in range(1_000):
            if not len(self.engine._operations):
                return
            changes = self.engine.changes()
            self.engine._operations.step(self.now, changes)
            self.engine.seal(self.now, changes)
            self.rows.apply(changes.writes)
            self.waiting -= {ending.result.id for ending in changes.endings}
        raise AssertionError("an operation without an end")

    def as_redriven(self, tasks: list[Known]) -> list[Known]:
        places = self.rows.of(b"I")
        # The last eight bytes of a ready key are its seq; before them are priority and name, of several lines here.
        return sorted(tasks, key=lambda task: places.get(b"I" + task.id, b"")[-8:])

    def has_queue(self, name: str) -> bool:
        return any(
            queue.name == name for queue in self.engine.apply(c.ListQueues(None), self.now, self.engine.changes())[0]
        )

    # ------------------------------------------------------------------ workers

    @rule(
        number=st.integers(0, 2),
        queues=st.sampled_from([("a",), ("b",), ("a", "b")]),
        names=st.sampled_from([("t",), ("t", "u")]),
        window=st.integers(1, 5),
    )
    def connect(self, number: int, queues: tuple[str, ...], names: tuple[str, ...], window: int) -> None:
        self.connect_worker(number, queues, names, window)

    def reconnect(self, worker: Worker) -> None:
        self.connect_worker(worker.session[0], worker.queues, worker.names, worker.window)

    def connect_worker(self, number: int, queues: tuple[str, ...], names: tuple[str, ...], window: int) -> None:
        session = bytes([number]) * 16
        worker = self.workers.get(session)
        if worker is None or session not in self.model.sessions:
            worker = self.workers[session] = Worker(session, queues, names, window, held=worker.held if worker else [])
        worker.connected, worker.window = True, window
        places = {each.place: each for each in worker.held}
        held = [(token, [index], [index] if (token, index) in worker.started else []) for token, index in places]
        info = WorkerInfo("w", "h", 1, "async", 1, list(worker.names))
        answer = self.run(c.Register(session, SECRET, info, held), dispatch=False)
        assert answer.resumed is (session in self.model.sessions)
        mine = {task.place: task for task in self.model.held(session)}
        assert sorted(answer.lost) == sorted(place for place in places if place not in mine)
        for place, task in mine.items():
            if place not in places:
                self.model.back(task)
            elif place in worker.started and not task.started:
                self.model.put(task, started=self.now)
        worker.held = [each for each in worker.held if each.place in mine]
        self.model.sessions.add(session)
        self.seen[session] = self.now
        self.settle_batch()
        self.run(c.Subscribe(session, [(queue, 1) for queue in worker.queues], False), dispatch=False)
        self.settle_batch()
        self.run(c.SetWindow(session, window, 1 << 30))
        self.settle_batch()

    def busy(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.held and worker.session in self.model.sessions]

    def some(self, pick: Pick) -> tuple[Worker, list[Held]]:
        worker = pick.choice(self.busy())
        return worker, pick.sample(worker.held, pick.randint(1, len(worker.held)))

    @precondition(lambda self: self.busy())
    @rule(pick=PICKS)
    def complete(self, pick: Pick) -> None:
        self.settle(pick, failed=False, reject=False, after=None)

    @precondition(lambda self: self.busy())
    @rule(pick=PICKS, reject=st.booleans(), after=st.sampled_from([None, 0, 2_000]))
    def fail(self, pick: Pick, reject: bool, after: int | None) -> None:
        self.settle(pick, failed=True, reject=reject, after=after)

    def settle(self, pick: Pick, failed: bool, reject: bool, after: int | None) -> None:
        worker, held = self.some(pick)
        forgets = pick.random() >= 0.8  # that it has settled, and does it again
        done = [] if failed else [Done(*each.place, b"r") for each in held]
        attempts = [FailedAttempt(*each.place, FAILURE, after, reject) for each in held] if failed else []
        rest: c.Settle | None = c.Settle(worker.session, [*done], attempts)
        while rest is not None:
            settled = self.run(rest)
            left = len(settled.rest.done) + len(settled.rest.failed) if settled.rest else 0
            part, held = held[: len(held) - left], held[len(held) - left :]
            assert part, "a settle that does not go on"
            size = bytes_of(self.pending[0].writes)
            assert size <= SETTLE_BYTES or len(part) == 1, f"{size} bytes for {len(part)} outcomes"
            self.seen[worker.session] = self.now
            for each in part:
                task = self.model.at(worker.session, each.place)
                assert (each.place in settled.lost) is (task is None)
                if task is not None and failed:
                    self.model.fail(task, self.now, after, reject=reject)
                elif task is not None:
                    self.model.end(task, "completed", self.now)
            if not forgets:
                worker.held = [each for each in worker.held if each not in part]
            rest = settled.rest
            self.settle_batch()

    @precondition(lambda self: self.busy())
    @rule(pick=PICKS)
    def mark_started(self, pick: Pick) -> None:
        self.mark(*self.some(pick))

    def mark(self, worker: Worker, held: list[Held]) -> None:
        self.run(c.MarkStarted(worker.session, [each.place for each in held]))
        self.seen[worker.session] = self.now
        for each in held:
            worker.started.add(each.place)
            task = self.model.at(worker.session, each.place)
            if task is not None and not task.started:
                self.model.put(task, started=self.now)
        self.settle_batch()

    @precondition(lambda self: self.busy())
    @rule(pick=PICKS)
    def release(self, pick: Pick) -> None:
        """Some go back, or all: then the line has several that are older than its head was."""
        worker, held = self.some(pick)
        held = list(worker.held) if pick.yes() else held
        self.run(c.Release(worker.session, [each.place for each in held]))
        for each in held:
            task = self.model.at(worker.session, each.place)
            if task is not None:
                self.model.back(task)
        worker.held = [each for each in worker.held if each not in held]
        self.settle_batch()

    @precondition(lambda self: self.busy())
    @rule(pick=PICKS)
    def die(self, pick: Pick) -> None:
        """One worker falls silent for the length of a lease; it may not know."""
        worker = pick.choice(self.busy())
        if pick.yes():
            self.mark(worker, worker.held[:2])
        worker.connected = pick.yes()
        if not worker.connected:
            self.run(c.Disconnect(worker.session), dispatch=False)
            self.settle_batch()
        self.beat_after(SETTINGS.lease_ms, self.model.sessions - {worker.session})
        worker.connected = False
        if pick.yes():
            self.reconnect(worker)

    @rule(number=st.integers(0, 2), leaves=st.booleans())
    def go(self, number: int, leaves: bool) -> None:
        session = bytes([number]) * 16
        if session not in self.model.sessions:
            return
        worker = self.workers[session]
        worker.connected = False
        if leaves:
            self.run(c.Leave(session))
            for task in self.model.held(session):
                self.model.back(task)
            self.model.sessions.discard(session)
            worker.held = []
        else:
            self.run(c.Disconnect(session))
        self.settle_batch()

    # ------------------------------------------------------------------ time and power

    @rule(ms=st.sampled_from([1, 500, 1_600, 4_000, 11_000, 40_000]), pick=PICKS)
    def time_passes(self, ms: int, pick: Pick) -> None:
        self.beat_after(ms, self.model.sessions if pick.random() < 0.8 else set())

    def beat_after(self, ms: int, sessions: set[bytes]) -> None:
        """Let time pass, in which *sessions* are heard of, and then all happen that it brings."""
        self.now += ms
        for session in sessions:
            self.run(c.Beat(session, self.now), dispatch=False)
            self.seen[session] = self.now
            self.settle_batch()
        self.model.pass_time(self.now, self.seen)
        changes = self.engine.changes()
        self.engine.apply(c.Tick(), self.now, changes)
        ticks = 1
        while self.engine.next_tick(self.now) <= self.now:
            self.engine.seal(self.now, changes)
            self.commit_part(changes)
            changes = self.engine.changes()
            self.engine.apply(c.Tick(), self.now, changes)
            ticks += 1
            assert ticks < 1_000, "ticks without an end"
        for task in list(self.model.tasks.values()):
            # An older note on the same task may be looked at before the second in which its own is.
            if 0 < task.expires <= self.now and changes.get(TASK + task.id) is None:
                del self.model.tasks[task.id]
        self.finish(changes)
        self.settle_batch()
        if ticks > 1:  # the model does not know what a power failure between two of them would leave
            self.unsynced.clear()

    def commit_part(self, changes: Changes) -> None:
        """Commit one tick of many: the model is ahead until the last of them, so only rows are checked."""
        a_death_is_promised(changes)
        self.rows.apply(changes.writes)
        self.unsynced.clear()
        for revocation in changes.revocations:
            worker = self.workers[revocation.session]
            worker.held = [each for each in worker.held if each.place not in revocation.tasks]
        self.waiting -= {ending.result.id for ending in changes.endings}
        check_invariants(self.rows, self.engine)

    @precondition(lambda self: len(self.engine._operations) > 0)
    @rule()
    def a_slice_of_an_operation_is_done(self) -> None:
        changes = self.engine.changes()
        self.engine._operations.step(self.now, changes)
        self.waiting -= {ending.result.id for ending in changes.endings}
        changes.endings.clear()
        self.finish(changes)
        self.settle_batch()

    @rule(pick=PICKS, power=st.booleans())
    def crash(self, pick: Pick, power: bool) -> None:
        """The process dies; with the power gone, so may batches that were not synced."""
        if power and self.unsynced:
            rows, self.model = pick.choice(self.unsynced)
            self.model = self.model.snapshot()
            self.rows = Rows(rows)
        self.unsynced.clear()
        self.waiting.clear()
        self.before = self.model.snapshot()
        for worker in self.workers.values():
            worker.connected = False
        self.seen = dict.fromkeys(self.model.sessions, self.now)
        for task in self.model.of("running"):
            self.model.put(task, started=self.now if task.started else 0)
        for token in {task.place[0] for task in self.model.of("running")}:
            self.model.date(token, self.now)
        self.start()
        for worker in [*self.workers.values()] if pick.yes() else []:
            self.reconnect(worker)

    # ------------------------------------------------------------------ what always holds

    @invariant()
    def every_task_is_where_the_model_says(self) -> None:
        changes = self.engine.changes()
        for task_id, view in zip(self.ids, self._views(changes), strict=True):
            task = self.model.tasks.get(task_id)
            expected = (task.state, task.attempts, task.losses, task.generation) if task else None
            found = (view.state.value, view.attempts, view.losses, view.generation) if view else None
            assert found == expected
        for queue in self.engine.apply(c.ListQueues(None), self.now, changes)[0]:
            mine = [task.state for task in self.model.tasks.values() if task.spec.queue == queue.name]
            counted = tuple(mine.count(state) for state in ("ready", "running", "scheduled", "dead"))
            assert (queue.ready, queue.running, queue.scheduled, queue.dead) == counted
        assert changes.writes == {}

    def _views(self, changes: Changes) -> list[TaskView | None]:
        return self.engine.apply(c.Get(self.ids), self.now, changes)


def a_death_is_promised(changes: Changes) -> None:
    """Who asks is told of a task's end at once, and what was told must not be undone by a crash."""
    dead = [key for key, value in changes.writes.items() if key[:1] == DEAD and value is not None]
    assert changes.promised or not (dead or changes.endings), "an end that a crash may undo"


def _turn(task: Known) -> tuple[int, int]:
    return -task.spec.priority, task.order


@contextmanager
def small_limits() -> Iterator[None]:
    """Let slices, heads and deliveries be so small that a few tasks meet every boundary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "HEADS_MAX", 3)
        patch.setattr(flows, "REFILL_ROWS", 2)
        patch.setattr(flows, "FLOOR_STEP", 2)
        patch.setattr(flows, "FLOOR_ROWS", 2)
        patch.setattr(operations, "SLICE_ROWS", 2)
        patch.setattr(passage, "SLICE_ROWS", 2)
        for module in (passage, custody):
            patch.setattr(module, "SLICE_BYTES", 300)
        patch.setattr(settle, "CHANGE_BYTES_MAX", SETTLE_BYTES)
        patch.setattr(dispatch, "DELIVERY_TASKS_MAX", 3)
        patch.setattr(dispatch, "BATCH_TASKS_MAX", 4)
        yield


def check(examples: int, *, shrinks: bool = True) -> None:
    """Run the machine; with fixed examples, so that a run of the suite is like every other."""
    phases = set(Phase) if shrinks else {Phase.generate}
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        derandomize="TQ_MODEL_EXAMPLES" not in os.environ,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with small_limits():
        run_state_machine_as_test(EngineMachine, settings=chosen)


def test_the_engine_does_what_a_naive_model_does() -> None:
    check(EXAMPLES)
