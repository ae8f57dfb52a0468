"""Rows: keys that sort like what they mean, and values that read back."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from tests.engine.harness import a_spec
from tq.core.errors import StoreTooNew
from tq.core.ids import compose
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import TaskResult
from tq.core.task import RECORD_FORMAT, TaskRecord, TaskSpec
from tq.core.times import Timestamp
from tq.engine import rows as r

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
FLOWS = st.builds(r.FlowId, U32, U32, st.integers(0, 255), U16, U16, U32)
ID = compose(Timestamp(1_800_000_000_000), 1)


@pytest.mark.parametrize("size", [0, 1, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0x4_0000])
@pytest.mark.parametrize("enqueued_at", [0, 127, 1_800_000_000_000, 1 << 47])
def test_a_record_put_together_from_parts_is_the_encoded_record(size: int, enqueued_at: int) -> None:
    spec = a_spec(priority=7)

    record = r.fresh_record(ID, r.encode_spec(spec), bytes(size), r.record_tail(enqueued_at))

    assert record == r.encode_record(TaskRecord(RECORD_FORMAT, ID, spec, bytes(size), enqueued_at))


@given(
    st.binary(max_size=300),
    st.integers(0, 1 << 47),
    st.builds(TaskSpec, st.text(max_size=300), st.text(max_size=130), st.integers(0, 255), st.integers(0, 1 << 40)),
)
def test_any_record_put_together_reads_back_and_shows_its_id(payload: bytes, at: int, spec: TaskSpec) -> None:
    record = r.fresh_record(ID, r.encode_spec(spec), payload, r.record_tail(at))

    assert r.decode_record(record) == TaskRecord(RECORD_FORMAT, ID, spec, payload, at)
    assert r.id_in(record) == ID


@pytest.mark.parametrize("other", [RECORD_FORMAT + 1, 0])
def test_a_record_of_an_unknown_format_is_refused_wherever_it_is_read(other: int) -> None:
    record = TaskRecord(RECORD_FORMAT, ID, a_spec(), b"p", 7)
    record.format = other
    encoded = r.encode_record(record)
    dead = r.encode_row(r.DeadRow(1, 2, DeadReason.REJECTED, record))
    words = f"a task of format {other}; this version knows up to {RECORD_FORMAT}"

    for read in (r.decode_record, r.decode_dead):
        with pytest.raises(StoreTooNew, match=words):
            read(encoded if read is r.decode_record else dead)
    with pytest.raises(StoreTooNew, match=words):
        r.decode_records([r.encode_record(TaskRecord(RECORD_FORMAT, ID, a_spec(), b"p", 7)), encoded])


def test_a_record_that_is_damaged_is_not_taken_for_a_newer_one() -> None:
    damaged = r.encode_row(TaskRecord(RECORD_FORMAT, ID, a_spec(), b"p", "then"))  # type: ignore[arg-type]

    for read in (r.decode_record, lambda value: r.decode_records([value])):
        with pytest.raises(msgspec.ValidationError):
            read(damaged)


@given(FLOWS, U64)
def test_a_ready_key_tells_its_flow_and_its_seq(flow: r.FlowId, seq: int) -> None:
    key = r.READY + flow.pack() + r.u64(seq)

    assert len(flow.pack()) == r.FLOW_BYTES
    assert (r.flow_of(key), r.seq_of(key)) == (flow, seq)


@given(st.lists(st.tuples(FLOWS, U64), max_size=20))
def test_keys_of_a_queue_sort_by_generation_then_urgency_then_seq(entries: list[tuple[r.FlowId, int]]) -> None:
    def order(entry: tuple[r.FlowId, int]) -> tuple[int, ...]:
        flow, seq = entry
        return flow.queue, flow.partition, flow.generation, flow.rank, flow.name, flow.key, seq

    keys = sorted(flow.pack() + r.u64(seq) for flow, seq in entries)

    assert keys == [flow.pack() + r.u64(seq) for flow, seq in sorted(entries, key=order)]


@given(FLOWS, U64)
def test_the_prefix_of_a_generation_bounds_its_keys(flow: r.FlowId, seq: int) -> None:
    flow = r.FlowId(flow.queue, flow.generation, flow.rank, flow.name)
    start = r.generation_prefix(r.READY, flow.queue, flow.generation)

    assert start <= r.READY + flow.pack() + r.u64(seq) < start + b"\xff" * 16


@given(U64, U64)
def test_a_due_key_tells_its_instant(due: int, seq: int) -> None:
    key = r.due_key(due, seq)

    assert (r.due_of(key), r.seq_of(key)) == (due, seq)
    assert key < r.key_end(r.DUE + b"\xff" * 8)


def test_a_dead_key_tells_its_queue() -> None:
    key = r.dead_prefix(7) + r.u64(9)

    assert (r.queue_of_dead(key), r.seq_of(key)) == (7, 9)
    assert r.dead_prefix(7) < key < r.key_end(r.dead_prefix(7)) <= r.dead_prefix(8)


def test_a_scheduled_value_parts_into_what_it_was_made_of() -> None:
    assert r.split_scheduled(r.scheduled_value(3, 4, b"record")) == (3, 4, b"record")


def test_an_ended_row_is_no_key() -> None:
    outcome = TaskResult(ID, TaskState.COMPLETED, Timestamp(5), b"r")
    row = r.EndedRow(9, "t", "q", 128, 1, 1, outcome)

    value = r.ended_value(row)

    assert r.decode_ended(value) == row
    assert value[:1] not in {r.READY, r.DUE, r.DEAD}


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_ids_of_an_expiry_row_are_parted_again(ids: list[bytes]) -> None:
    assert r.split_ids(r.join_ids(ids)) == ids
