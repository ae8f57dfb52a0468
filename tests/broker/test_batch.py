"""When a batch is full, and when it has nothing to do."""

from tests.broker.peers import Bench
from tq.broker.batch import ASKED_BYTES_MAX, SAID_BYTES_MAX, WRITES_MAX, WRITTEN_BYTES_MAX, Batch
from tq.broker.sessions import Session
from tq.engine.changes import Changes, Delivery
from tq.store.memory import MemoryStore


def fresh() -> Batch:
    return Batch(Changes(MemoryStore()))


def someone() -> Session:
    return Bench(MemoryStore()).service.connection()


def test_it_is_full_by_what_is_asked_said_or_written() -> None:
    asked, said, many, much = (fresh() for _ in range(4))

    asked.asked_bytes = ASKED_BYTES_MAX
    said.say(someone(), bytes(SAID_BYTES_MAX))
    many.changes.writes.update({number.to_bytes(4, "big"): b"" for number in range(WRITES_MAX)})
    much.changes.writes[b"k"] = bytes(WRITTEN_BYTES_MAX)

    assert not fresh().full
    assert all(batch.full for batch in (asked, said, many, much))


def test_it_counts_each_key_and_value_that_is_written_once() -> None:
    batch = fresh()

    batch.changes.writes.update({b"one": b"12345", b"two": None})
    first = batch.written_bytes
    batch.changes.writes[b"three"] = b"1"

    assert (first, batch.written_bytes, batch.written_bytes) == (11, 17, 17)


def test_it_is_empty_until_it_writes_says_or_delivers_something() -> None:
    session = someone()
    writing, saying, closing, delivering = fresh(), fresh(), fresh(), fresh()

    writing.changes.writes[b"k"] = b"v"
    saying.say(session, b"hello")
    closing.closing.append(session)
    delivering.changes.deliveries.append(Delivery(b"s" * 16, 1, alone=False, records=[]))

    assert fresh().empty
    assert not any(batch.empty for batch in (writing, saying, closing, delivering))


def test_what_is_said_to_one_session_keeps_its_order() -> None:
    session = someone()
    batch = fresh()

    batch.say(session, b"1")
    batch.say(session, b"2")

    assert batch.spoken == {session: [b"1", b"2"]}
