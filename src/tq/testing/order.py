"""What must hold of the tasks that one batch hands out, and of those that it leaves.

A hand-out is compared with what is left when its batch has been written: all that was
handed out came before all of it.  The rules, for a worker's lane (the queues it serves):

1. A task handed out is more urgent than what is left of the lane, or as urgent and older;
   by weights, age counts within a queue only.
2. The same holds of a suspect handed out alone (by weights, its age does not count against the
   line), and suspects keep this order among themselves.
3. A worker with room leaves nothing of its lane, unless it is being emptied for a suspect.
4. A worker that holds nothing leaves no suspect whose turn it is.

Rule 4 is why the first need not look at suspects that are left: a task passes one only
while nobody was free to take the suspect alone.
"""

# Who has room and what a lane is the engine keeps private.
# ruff: noqa: SLF001

from collections.abc import Iterable

from tq.engine import rows as r
from tq.engine.dispatch import Lane
from tq.engine.engine import Engine
from tq.engine.rows import LeaseRow
from tq.engine.workers import WorkerSession
from tq.testing.invariants import Rows, suspects_of
from tq.testing.workload import WentWrong

Place = tuple[int, int]
"""Rank and seq: what comes first is lower."""


def check_hand_out(rows: Rows, engine: Engine, fresh: dict[int, LeaseRow], *, is_complete: bool) -> None:
    """Check the batch that has written *rows*, with the leases *fresh*.

    *is_complete*: the dispatcher has come to its end, and was not told to pause between two batches.

    Raises:
        WentWrong: Something was handed out, or left, against the order.
    """
    suspects = suspects_of(engine)
    unsure = {key for key, record in rows.ready.items() if record.losses} - suspects
    waiting = [key for key in rows.ready if key not in rows.leased and rows.live(key) and key not in unsure]
    waiting = [key for key in waiting if not rows.queues[r.flow_of(key).queue].paused]
    for lease in fresh.values():
        lane = engine._lanes._by_session.get(lease.session)
        if lane is not None:
            _check_lease(lease, lane, _left(lane, waiting), suspects)
    if is_complete:
        for lane in engine._lanes._by_id.values():
            _check_hands(lane, _left(lane, waiting), suspects)


def _left(lane: Lane, waiting: list[bytes]) -> list[bytes]:
    """Return what waits in the queues of *lane*; all workers of a simulation have all handlers."""
    numbers = {queue.number for queue in lane.weights}
    return [key for key in waiting if r.flow_of(key).queue in numbers]


def _check_lease(lease: LeaseRow, lane: Lane, left: list[bytes], suspects: set[bytes]) -> None:
    given = [key for key in lease.keys if key is not None]
    line = [key for key in left if key not in suspects]
    aside = [key for key in left if key in suspects]
    if lane.id.weighted:
        # A suspect's age is not compared with that of the line, where weights decide between queues.
        for queue in {r.flow_of(key).queue for key in given if not lease.alone}:
            _compare(_of(queue, given), _of(queue, line), "of its queue")
        _compare([(rank, 0) for rank, _ in _places(given)], [(rank, 0) for rank, _ in _places(line)], "less urgent")
    else:
        _compare(_places(given), _places(line), "of its lane")
    if lease.alone:
        _compare(_places(given), _places(aside), "of the suspects")


def _check_hands(lane: Lane, left: list[bytes], suspects: set[bytes]) -> None:
    line = _places(key for key in left if key not in suspects)
    aside = _places(key for key in left if key in suspects)
    free = [worker for worker in lane.workers if worker.open]
    if line and (idle := [worker for worker in free if not worker.reserved]):
        raise WentWrong(f"{_named(idle)} has room, and {min(line)} (rank, seq) was left")
    # Where a lane has weights, age says nothing between a suspect and the line: the more urgent goes first.
    first = min(line, default=None)
    turn = [place for place in aside if first is None or place < first or (lane.id.weighted and place[0] <= first[0])]
    if turn and (idle := [worker for worker in free if not worker.held_tasks]):
        raise WentWrong(f"{_named(idle)} holds nothing, and {min(turn)} (rank, seq), a suspect, was left")


def _compare(given: list[Place], left: list[Place], whose: str) -> None:
    last = max(given, default=(0, 0))
    first = min(left, default=last)
    if first < last:
        raise WentWrong(f"out of order: (rank, seq) {last} was handed out, {first} {whose} is left")


def _of(queue: int, keys: list[bytes]) -> list[Place]:
    return _places(key for key in keys if r.flow_of(key).queue == queue)


def _places(keys: Iterable[bytes]) -> list[Place]:
    return [(r.flow_of(key).rank, r.seq_of(key)) for key in keys]


def _named(workers: list[WorkerSession]) -> str:
    return ", ".join(worker.info.name for worker in workers)
