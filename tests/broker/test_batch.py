"""When a batch is full, and when it has nothing to do."""

from tq.broker.batch import BYTES_MAX, WRITES_MAX, Batch, in_frames
from tq.broker.sessions import Session
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.times import Timestamp
from tq.engine.changes import Changes, Delivery
from tq.store.memory import MemoryStore


class _Nobody:
    connection_bytes_max = 1
    frame_bytes_max = 1

    def opened(self, session: Session) -> None: ...
    def arrived(self, session: Session) -> None: ...
    def closed(self, session: Session) -> None: ...
    def may_buffer(self, count: int) -> bool:
        return True


def fresh() -> Batch:
    return Batch(Changes(MemoryStore()))


def test_it_is_full_by_bytes_or_by_writes() -> None:
    by_bytes, by_writes = fresh(), fresh()

    by_bytes.bytes_in = BYTES_MAX
    by_writes.changes.writes.update({number.to_bytes(4, "big"): b"" for number in range(WRITES_MAX)})

    assert (fresh().full, by_bytes.full, by_writes.full) == (False, True, True)


def test_it_is_empty_until_it_writes_says_or_delivers_something() -> None:
    session = Session(_Nobody(), 1)
    writing, saying, closing, delivering = fresh(), fresh(), fresh(), fresh()

    writing.changes.writes[b"k"] = b"v"
    saying.say(session, b"hello")
    closing.closing.append(session)
    delivering.changes.deliveries.append(Delivery(b"s" * 16, 1, alone=False, records=[]))

    assert fresh().empty
    assert not any(batch.empty for batch in (writing, saying, closing, delivering))


def test_what_is_said_to_one_session_keeps_its_order() -> None:
    session = Session(_Nobody(), 1)
    batch = fresh()

    batch.say(session, b"1")
    batch.say(session, b"2")

    assert batch.spoken == {session: [b"1", b"2"]}


def test_results_are_cut_into_frames_in_their_order_and_none_is_left_out() -> None:
    results = [
        TaskResult(bytes([n]) * 16, TaskState.COMPLETED, Timestamp(0), b"r" * size)
        for n, size in enumerate([10, 300_000, 300_000, 10, 600_000, 10])
    ]

    frames = in_frames(results, 1 << 20)

    assert [[result.id[0] for result in frame] for frame in frames] == [[0, 1], [2, 3], [4], [5]]
