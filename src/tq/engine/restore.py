"""Restore: from rows to a running engine, in O(running tasks + active flows + queues + workers).

Ready and scheduled tasks are not read: a flow knows its floor, the timeline its earliest
row.  Invariant: after a restore every task under a lease row is either running again,
with a fresh lease time, or back in its flow.
"""

from tq.core.lease import Token
from tq.engine.changes import Changes, Reader
from tq.engine.flows import QueuedTask
from tq.engine.leases import Lease, Leases
from tq.engine.queues import Queues
from tq.engine.rows import FLOW, LEASE, LeaseRow, decode_lease, decode_record, flow_of, key_end, seq_of
from tq.engine.settle import Settler
from tq.engine.workers import Workers

_PAGE = 1_000


def restore_flows(queues: Queues, reader: Reader, changes: Changes) -> None:
    """Take up every flow that has a row."""
    start, end = FLOW, key_end(FLOW + b"\xff" * 20)
    while rows := reader.scan(start, end, _PAGE):
        for key, value in rows:
            if queues.take_up(key, int.from_bytes(value, "big")) is None:
                changes.writes[key] = None
        start = rows[-1][0] + b"\0"


def restore_leases(
    queues: Queues,
    leases: Leases,
    workers: Workers,
    settler: Settler,
    reader: Reader,
    now: int,
    changes: Changes,
) -> None:
    """Take up every lease: tasks of workers that are known go on, the others go back."""
    orphans: list[QueuedTask] = []
    start, end = LEASE, key_end(LEASE)
    while rows := reader.scan(start, end, _PAGE):
        for key, value in rows:
            row = decode_lease(value)
            lease = _lease(Token(int.from_bytes(key[1:], "big")), row, queues, reader, now)
            if not lease.live:
                changes.writes[key] = None
                continue
            leases.restore(lease)
            worker = workers.get(row.session)
            held = [task for task in lease.tasks if task is not None]
            if worker is None:
                orphans += held
                continue
            worker.isolating = worker.isolating or row.alone
            for task in held:
                worker.hold(task)
        start = rows[-1][0] + b"\0"
    settler.lose(orphans, now, changes)


def _lease(token: Token, row: LeaseRow, queues: Queues, reader: Reader, now: int) -> Lease:
    started = set(row.started)
    tasks: list[QueuedTask | None] = []
    lease = Lease(token, row.session, row.alone, [])
    for index, key in enumerate(row.keys):
        value = reader.get(key) if key is not None else None
        if key is None or value is None:  # handed back, or settled
            tasks.append(None)
            continue
        record = decode_record(value)
        flow = queues.flow_under_lease(flow_of(key))
        task = QueuedTask(
            seq_of(key), record.id, flow, record.spec, value,
            record.enqueued_at, record.attempts, record.losses, record.generation,
        )  # fmt: skip
        task.lease, task.index, task.started_at = lease, index, now if index in started else 0
        tasks.append(task)
    lease.tasks = tasks
    lease.live = sum(task is not None for task in tasks)
    return lease
