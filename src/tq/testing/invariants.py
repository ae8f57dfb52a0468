"""What must hold of the rows of a broker after every commit, and of an engine over them.

    check_invariants(store)             the rows agree with each other
    check_invariants(store, engine)     and what the engine remembers agrees with the rows

Reads every row, so it is for tests and simulations.  Invariant: it changes nothing, and
raises `InvariantBroken`, which names the row, where anything does not add up.
"""

# The engine keeps what it remembers private; to compare it with the rows, this must look.
# ruff: noqa: SLF001

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import NoReturn

from tq.core.ids import format_id, is_uuid7
from tq.core.lease import Token, epoch_of
from tq.core.lifecycle import TERMINAL
from tq.core.priority import PRIORITY_MAX
from tq.core.task import TaskRecord
from tq.engine import rows as r
from tq.engine.changes import Reader, all_rows
from tq.engine.engine import Engine
from tq.engine.flows import Flow, turn_of

_PAGE = 10_000
# After every key there is: no key starts with it.
_END = b"\xff"
_SEQ = b"seq"
_LETTERS = frozenset({
    r.READY, r.TASK, r.LEASE, r.DUE, r.DEAD, r.EXPIRY, r.FRAME,
    r.FLOW, r.QUEUE, r.NAMES, r.WORKER, r.OPERATION, r.META,
})  # fmt: skip


class InvariantBroken(AssertionError):
    """The rows, or the engine and its rows, contradict each other: a bug of the engine or of the store."""


def suspects_of(engine: Engine) -> set[bytes]:
    """Return the ready keys of the tasks that *engine* keeps apart, to hand out alone."""
    return {task.key for queue in engine._queues.all() for task in queue.suspects if task.suspect}


def check_invariants(reader: Reader, engine: Engine | None = None) -> None:
    """Check all rows of *reader*, and that *engine*, which has sealed and committed all it did, agrees.

    Raises:
        InvariantBroken: Something does not add up.
    """
    rows = Rows(reader)
    # All at once: what is of no known kind would be asked for by nobody.
    assert rows.all is not None
    for check in (
        _queues, _ids, _ready_rows, _due_rows, _dead_letters, _ended_rows, _leases, _floors, _counters, _numbers,
    ):  # fmt: skip
        check(rows)
    if engine is not None:
        for compare in (_running, _flows_in_memory, _tasks_in_memory, _workers, _heads_budget):
            compare(rows, engine)


class Rows:
    """The rows by their letter; each kind is read, and decoded, when it is first asked for, and once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._by_letter: dict[bytes, dict[bytes, bytes]] = {}

    def of(self, letter: bytes) -> dict[bytes, bytes]:
        """Return the rows of one kind."""
        found = self._by_letter.get(letter)
        if found is None:
            found = self._by_letter[letter] = dict(all_rows(self._reader, letter))
        return found

    @cached_property
    def all(self) -> dict[bytes, bytes]:
        """All rows."""
        rows = dict(_every(self._reader))
        by_letter: dict[bytes, dict[bytes, bytes]] = {letter: {} for letter in _LETTERS}
        for key, value in rows.items():
            by_letter.setdefault(key[:1], {})[key] = value
        if len(by_letter) > len(_LETTERS):
            _fail(f"rows of unknown kinds: {by_letter.keys() - _LETTERS}")
        self._by_letter = by_letter
        return rows

    @cached_property
    def queues(self) -> dict[int, r.QueueRow]:
        """The queues by their numbers."""
        return {_number(key[1:]): r.decode_queue(value) for key, value in self.of(r.QUEUE).items()}

    @cached_property
    def names(self) -> dict[int, list[str]]:
        """The task names of each queue."""
        names: dict[int, list[str]] = {}
        for key, value in sorted(self.of(r.NAMES).items()):
            names.setdefault(r.queue_of_names(key), []).extend(r.decode_names(value))
        return names

    @cached_property
    def ready(self) -> dict[bytes, TaskRecord]:
        """What is ready or running."""
        return {key: r.decode_record(value) for key, value in self.of(r.READY).items()}

    @cached_property
    def due(self) -> dict[bytes, tuple[int, int, bytes]]:
        """What waits for its time: queue, generation, record."""
        return {key: r.split_scheduled(value) for key, value in self.of(r.DUE).items()}

    @cached_property
    def dead(self) -> dict[bytes, r.DeadRow]:
        """The dead letters."""
        return {key: r.decode_dead(value) for key, value in self.of(r.DEAD).items()}

    @cached_property
    def leases(self) -> dict[int, r.LeaseRow]:
        """The lease rows by their tokens; those of which all is settled may be there still."""
        return {_number(key[1:]): r.decode_lease(value) for key, value in self.of(r.LEASE).items()}

    @cached_property
    def workers(self) -> dict[bytes, r.WorkerRow]:
        """The workers by their sessions."""
        return {key[1:]: r.decode_worker(value) for key, value in self.of(r.WORKER).items()}

    @cached_property
    def operations(self) -> dict[bytes, r.OperationRow]:
        """The operations under way."""
        return {key: r.decode_operation(value) for key, value in self.of(r.OPERATION).items()}

    @cached_property
    def floors(self) -> dict[bytes, int]:
        """The floors of the flows."""
        return {key: _number(value) for key, value in self.of(r.FLOW).items()}

    @cached_property
    def meta(self) -> dict[bytes, int]:
        """The numbers of the whole."""
        return {key[1:]: _number(value) for key, value in self.of(r.META).items()}

    @cached_property
    def leased(self) -> dict[bytes, int]:
        """The token of each ready key that is under a lease."""
        ready = self.of(r.READY)
        return {key: token for token, lease in self.leases.items() for key in lease.keys if key in ready}

    def live(self, key: bytes) -> bool:
        """Tell whether a ready row or a floor is of the present generation of its queue."""
        flow = r.flow_of(key)
        return flow.generation == self.queues[flow.queue].generation


def _every(reader: Reader) -> Iterable[tuple[bytes, bytes]]:
    start = b""
    while page := reader.scan(start, _END, _PAGE, 1 << 30):
        yield from page
        start = page[-1][0] + b"\0"


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _fail(text: str) -> NoReturn:
    raise InvariantBroken(text)


def _shown(key: bytes) -> str:
    if key[:1] in {r.READY, r.FLOW}:
        return f"{key[:1].decode()} {r.flow_of(key)}" + (f" seq {r.seq_of(key)}" if key[:1] == r.READY else "")
    return f"{key[:1].decode()} {key[1:].hex()}"


# ------------------------------------------------------------------------------------------------ rows


def _queues(rows: Rows) -> None:
    """Queues are numbered from 1 without a gap, and no two have the same name."""
    numbers = sorted(rows.queues)
    if numbers != list(range(1, len(numbers) + 1)):
        _fail(f"queues are numbered {numbers}")
    names = [queue.name for queue in rows.queues.values()]
    if len(set(names)) != len(names):
        _fail(f"two queues of one name: {names}")
    if not rows.names.keys() <= rows.queues.keys():
        _fail("task names of a queue that does not exist")


def _ids(rows: Rows) -> None:
    """Every id row points to a row of that task, or tells how it ended."""
    for key, place in rows.of(r.TASK).items():
        task_id = key[1:]
        if place[:1] == r.ENDED:
            outcome = r.decode_ended(place).outcome
            if outcome.id != task_id:
                _fail(f"id {format_id(task_id)} has the end of {format_id(outcome.id)}")
            if outcome.state not in TERMINAL:
                _fail(f"id {format_id(task_id)} has ended in state {outcome.state}")
            continue
        value = rows.all.get(place)
        if value is None or place[:1] not in {r.READY, r.DUE, r.DEAD}:
            _fail(f"id {format_id(task_id)} points to {_shown(place)}, where there is nothing")
        found = _id_at(rows, place)
        if found != task_id:
            _fail(f"id {format_id(task_id)} points to {_shown(place)} of {format_id(found)}")


def _id_at(rows: Rows, place: bytes) -> bytes:
    if place[:1] == r.READY:
        return rows.ready[place].id
    return r.id_in(rows.due[place][2]) if place[:1] == r.DUE else rows.dead[place].record.id


def _points_back(rows: Rows, key: bytes, task_id: bytes) -> None:
    place = rows.of(r.TASK).get(r.TASK + task_id)
    if place != key:
        _fail(f"{_shown(key)}: the id row of its task says {place!r}")


def _in_its_flow(rows: Rows, key: bytes, record: TaskRecord) -> None:
    flow = r.flow_of(key)
    queue = rows.queues.get(flow.queue)
    names = rows.names.get(flow.queue, [])
    if queue is None:
        _fail(f"{_shown(key)}: of a queue that does not exist")
    if flow.name >= len(names):
        _fail(f"{_shown(key)}: its task name has no number in its queue")
    expected = (rows.queues[flow.queue].name, names[flow.name], PRIORITY_MAX - flow.rank)
    found = (record.spec.queue, record.spec.name, record.spec.priority)
    if found != expected:
        _fail(f"{_shown(key)}: the flow of {expected} holds a task of {found}")


def _ready_rows(rows: Rows) -> None:
    """A ready row is in the flow of its task, and what a purge has dropped is under way to be removed."""
    for key, record in rows.ready.items():
        _in_its_flow(rows, key, record)
        if record.id != r.id_in(rows.all[key]):
            _fail(f"{_shown(key)}: the id is not where it should be")
        _points_back(rows, key, record.id)
        if not rows.live(key) and key not in rows.leased:
            _is_being_purged(rows, key, r.flow_of(key).queue, r.flow_of(key).generation)


def _is_being_purged(rows: Rows, key: bytes, queue: int, generation: int) -> None:
    purges = [o for o in rows.operations.values() if o.kind == "purge" and o.queue == queue]
    if not any(o.generation >= generation and o.cursor <= key < o.until for o in purges):
        _fail(f"{_shown(key)}: of a purged generation, and no purge will remove it")


def _due_rows(rows: Rows) -> None:
    """No task waits where the timeline no longer looks, and what a purge has dropped will be removed."""
    floor = rows.meta.get(b"due", 0)
    for key, (queue, generation, encoded) in rows.due.items():
        if queue not in rows.queues:
            _fail(f"{_shown(key)}: of a queue that does not exist")
        if r.due_of(key) < floor:
            _fail(f"{_shown(key)}: before the floor {floor} of the timeline")
        _points_back(rows, key, r.id_in(encoded))
        if generation != rows.queues[queue].generation:
            _is_being_purged(rows, key, queue, generation)


def _dead_letters(rows: Rows) -> None:
    """A dead letter has an id, a queue and an hour to be forgotten."""
    expiries = _expiries(rows)
    for key, row in rows.dead.items():
        _points_back(rows, key, row.record.id)
        queue = rows.queues.get(r.queue_of_dead(key))
        if queue is None or queue.name != row.record.spec.queue:
            _fail(f"{_shown(key)}: in another's dead letter")
        last = expiries.get(row.record.id, 0)
        if last < row.expires_at:
            _fail(f"{_shown(key)}: expires at {row.expires_at}, looked at last at {last}")


def _ended_rows(rows: Rows) -> None:
    """The end of a task will be forgotten some time, and not before its time."""
    expiries = _expiries(rows)
    floor = rows.meta.get(b"expiry", 0)
    for key in rows.of(r.EXPIRY):
        if r.due_of(key) < floor:
            _fail(f"{_shown(key)}: before the floor {floor} of the expiries")
    for key, place in rows.of(r.TASK).items():
        if place[:1] == r.ENDED:
            row = r.decode_ended(place)
            last = expiries.get(key[1:], 0)
            if last < row.expires_at:
                _fail(f"{_shown(key)}: expires at {row.expires_at}, looked at last at {last}")


def _expiries(rows: Rows) -> dict[bytes, int]:
    """When the end of each task is looked at for the last time."""
    return {
        task_id: r.due_of(key) for key, value in sorted(rows.of(r.EXPIRY).items()) for task_id in r.split_ids(value)
    }


def _leases(rows: Rows) -> None:
    """A task is under one lease at most, of a worker that is known, and no lease is empty."""
    counts = Counter(key for lease in rows.leases.values() for key in lease.keys if key in rows.ready)
    for key, count in counts.items():
        assert key is not None, "None is no ready key"
        if count != 1:
            _fail(f"{_shown(key)}: under {count} leases")
    for token, lease in rows.leases.items():
        if not any(key in rows.ready for key in lease.keys):
            _fail(f"lease {token}: nothing is under it")
        if lease.session not in rows.workers:
            _fail(f"lease {token}: its worker {lease.session.hex()} is not known")
        if not all(0 <= index < len(lease.keys) for index in lease.started):
            _fail(f"lease {token}: {lease.started} started")
        if lease.alone and len(lease.keys) != 1:
            _fail(f"lease {token}: {len(lease.keys)} tasks alone")


def _floors(rows: Rows) -> None:
    """A restart finds every ready task: from the floor of its flow on, or under a lease."""
    for key in rows.ready:
        if key in rows.leased or not rows.live(key):
            continue
        floor = rows.floors.get(r.FLOW + key[1:-8])
        if floor is None:
            _fail(f"{_shown(key)}: its flow has no row")
        if floor > r.seq_of(key):
            _fail(f"{_shown(key)}: below the floor {floor} of its flow")


def _counters(rows: Rows) -> None:
    """The counters of a queue are what a count of its rows gives."""
    pending: Counter[int] = Counter()
    for key in rows.ready:
        if rows.live(key) or key in rows.leased:
            pending[r.flow_of(key).queue] += 1
    scheduled = Counter(
        queue for queue, generation, _ in rows.due.values() if generation == rows.queues[queue].generation
    )
    dead = Counter(r.queue_of_dead(key) for key in rows.dead)
    for number, queue in rows.queues.items():
        counted = (pending[number], scheduled[number], dead[number])
        found = (queue.pending, queue.scheduled, queue.dead)
        if found != counted:
            _fail(f"queue {queue.name}: counts {found} pending, scheduled, dead; there are {counted}")
        gone = queue.completed_total + queue.cancelled_total + queue.purged_total
        # The others are dead letters past their retention, which no counter tells.
        if queue.enqueued_total < sum(found) + gone:
            _fail(f"queue {queue.name}: {queue.enqueued_total} were enqueued, {sum(found)} are there and {gone} gone")


def _numbers(rows: Rows) -> None:
    """No seq is above what is reserved, none is used twice, no token is of an epoch to come."""
    seqs = Counter(r.seq_of(key) for letter in (r.READY, r.DUE, r.DEAD, r.EXPIRY) for key in rows.of(letter))
    seqs.update(_number(key[1:]) for key in rows.operations)
    twice = [seq for seq, count in seqs.items() if count > 1]
    if twice:
        _fail(f"seqs in use twice: {twice}")
    if max(seqs, default=0) > rows.meta.get(_SEQ, 0):
        _fail("a seq above what is reserved: a restart would reuse it")
    late = [token for token in rows.leases if epoch_of(Token(token)) > rows.meta.get(b"epoch", 0)]
    if late:
        _fail(f"tokens of an epoch that has not begun: {late}")
    wrong = [key for key in rows.of(r.FRAME) if not is_uuid7(key[1:])]
    if wrong:
        _fail(f"frame ids that are none: {wrong}")
    for key, operation in rows.operations.items():
        if operation.queue and operation.queue not in rows.queues:
            _fail(f"{_shown(key)}: on a queue that does not exist")


# ------------------------------------------------------------------------------------------------ an engine over them


def _running(rows: Rows, engine: Engine) -> None:
    """The engine's leases are those in the rows."""
    found = {task.key: (task.lease.token, bool(task.started_at)) for task in engine._leases.running.values()
             if task.lease is not None}  # fmt: skip
    started = {key: index in lease.started for lease in rows.leases.values() for index, key in enumerate(lease.keys)}
    expected = {key: (token, started[key]) for key, token in rows.leased.items()}
    if found != expected:
        _fail(f"under leases: {len(found)} in memory, {len(expected)} in rows, or other ones")
    for key, record in rows.ready.items():
        task = engine._leases.running.get(record.id)
        if task is not None and task.record != rows.all[key]:
            _fail(f"{_shown(key)}: the record in memory is another one")
    held = Counter(r.flow_of(key) for key in rows.leased)
    for queue in engine._queues.all():
        count = sum(n for flow, n in held.items() if flow.queue == queue.number)
        if queue.running_count != count:
            _fail(f"queue {queue.row.name}: {queue.running_count} running, {count} leased")
        if queue.row != rows.queues[queue.number]:
            _fail(f"queue {queue.row.name}: its row was not written")
        for flow_id, flow in queue.flows.items():
            if flow.held != held[flow_id]:
                _fail(f"{flow_id}: {flow.held} held, {held[flow_id]} leased")


def _flows_in_memory(rows: Rows, engine: Engine) -> None:
    """The flows in memory are those with a row, and know their floor."""
    flows = {r.FLOW + flow_id.pack(): flow for queue in engine._queues.all() for flow_id, flow in queue.flows.items()}
    live = {key for key in rows.floors if rows.live(key)}
    if flows.keys() != live:
        _fail("the flows in memory are not those with a row")
    for key in rows.floors.keys() - live:
        _is_being_purged(rows, key, r.flow_of(key).queue, r.flow_of(key).generation)
    for key, flow in flows.items():
        floor = rows.floors[key]
        if flow._floor_written != floor:
            _fail(f"{_shown(key)}: floor {floor}, in memory {flow._floor_written}")


def _tasks_in_memory(rows: Rows, engine: Engine) -> None:
    """Each waiting task is in one place of its flow: a head, returned, aside, or in the part not yet read."""
    waiting: dict[bytes, set[int]] = {}
    for key in rows.ready:
        if rows.live(key) and key not in rows.leased:
            waiting.setdefault(key[1:-8], set()).add(r.seq_of(key))
    for queue in engine._queues.all():
        for flow_id, flow in queue.flows.items():
            there = waiting.pop(flow_id.pack(), set())
            kept = _kept(flow)
            if len(set(kept)) != len(kept):
                _fail(f"{flow_id}: a task is kept twice: {sorted(kept)}")
            if not flow._dropped <= set(kept):
                _fail(f"{flow_id}: {flow._dropped - set(kept)} are dropped but not there")
            read = {seq for seq in there if seq < flow.cursor}
            known = set(kept) - flow._dropped
            if known != read:
                _fail(f"{flow_id}: in memory {sorted(known)}, waiting below the cursor {sorted(read)}")
            if not flow.unread and there != read:
                _fail(f"{flow_id}: {sorted(there - read)} are unread, which it does not know")
            heads = [task.seq for task in flow._heads]
            if heads != sorted(heads):
                _fail(f"{flow_id}: heads out of order: {heads}")
        if queue.suspects != sorted(queue.suspects, key=turn_of):
            _fail(f"queue {queue.row.name}: its suspects are not in the order of their turns")
        aside = sorted(task.seq for task in queue.suspects)
        listed = sorted(seq for flow in queue.flows.values() for seq in flow.aside)
        if aside != listed:
            _fail(f"queue {queue.row.name}: suspects {aside}, aside in its flows {listed}")
        if aside and queue not in engine._queues.with_suspects:
            _fail(f"queue {queue.row.name}: its suspects are forgotten")
    if waiting:
        _fail(f"{len(waiting)} flows with waiting tasks are not in memory")


def _kept(flow: Flow) -> list[int]:
    return [task.seq for task in flow._heads] + [seq for seq, _ in flow._returned] + list(flow.aside)


def _workers(rows: Rows, engine: Engine) -> None:
    """The workers are those with a row, and hold what is under their leases."""
    workers = {worker.session: worker for worker in engine._workers.all()}
    if workers.keys() != rows.workers.keys():
        _fail("the workers in memory are not those with a row")
    for session in workers.keys() | engine._leases._by_session.keys():
        held = list(engine._leases.held_by(session))
        leased = [t for t in engine._leases.running.values() if t.lease is not None and t.lease.session == session]
        if {task.id for task in held} != {task.id for task in leased} or len(held) != len(leased):
            _fail(f"worker {session.hex()}: its part of the leases has {len(held)} tasks; under them are {len(leased)}")
        started = sum(task.started_at > 0 for task in leased)
        if engine._leases.started_by(session) != started:
            _fail(f"worker {session.hex()}: counts {engine._leases.started_by(session)} started; {started} are")
    tasks: Counter[bytes] = Counter()
    size: Counter[bytes] = Counter()
    for task in engine._leases.running.values():
        if task.lease is not None:
            tasks[task.lease.session] += 1
            size[task.lease.session] += len(task.record)
    for session, worker in workers.items():
        counted, under = (worker.held_tasks, worker.held_bytes), (tasks[session], size[session])
        if counted != under:
            _fail(f"worker {session.hex()}: counts {counted} tasks, bytes held; leased are {under}")


def _heads_budget(rows: Rows, engine: Engine) -> None:
    """The bytes of all heads are counted."""
    used = sum(t.charge for q in engine._queues.all() for flow in q.flows.values() for t in flow._heads)
    budget = engine._queues._budget
    if budget.used != used:
        _fail(f"heads hold {used} bytes, counted are {budget.used}")
    flows = {flow for queue in engine._queues.all() for flow in queue.flows.values()}
    if not budget.holders.keys() <= flows:
        _fail("flows that are gone are to give up heads")
    wrong = [flow.id for flow in flows if flow._is_holder != (flow in budget.holders)]
    if wrong:
        _fail(f"{wrong}: are taken for holders of heads and are not, or the other way round")
    hidden = [flow.id for flow in flows if len(flow._heads) > 1 and not flow._is_holder]
    if hidden:
        _fail(f"{hidden}: hold heads that nobody can ask for")
