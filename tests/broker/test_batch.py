"""When a batch is full, and when it has nothing to do."""

from tq.broker.batch import BYTES_MAX, WRITES_MAX, Batch
from tq.broker.sessions import Session
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
