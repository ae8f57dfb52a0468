"""Restore: from rows to a running engine, in O(running tasks + active flows + queues + workers).

Ready and scheduled tasks are not read: a flow knows its floor, the timeline its earliest
row.  Invariant: after a restore every task under a lease row is either running again,
with a fresh lease time, or back in its flow.
"""

from tq.core.lease import Token
from tq.engine.changes import Changes, Reader, all_rows
from tq.engine.flows import QueuedTask
from tq.engine.leases import Lease, Leases
from tq.engine.queues import Queues
from tq.engine.rows import FLOW, LEASE, LeaseRow, decode_lease, decode_record, flow_of, seq_of
from tq.engine.settle import Settler
from tq.engine.workers import Workers


def restore_flows(queues: Queues, reader: Reader) -> None:
    """Take up every flow that has a row, but those of which a purge will remove it."""
    for key, value in all_rows(reader, FLOW):
        queues.take_up(key, int.from_bytes(value, "big"))


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
    for key, value in all_rows(reader, LEASE):
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
        task = QueuedTask.of(decode_record(value), value, queues.flow_under_lease(flow_of(key)), seq_of(key))
        task.lease, task.index, task.started_at = lease, index, now if index in started else 0
        tasks.append(task)
    lease.tasks = tasks
    lease.live = sum(task is not None for task in tasks)
    return lease
