"""The rows: every key and value that the broker keeps, in one byte keyspace (docs/adr/0001-rows-and-flows.md).

    R | flow | seq                   -> the task's record; it stays until the task is settled
    I | task id                      -> the key of the row where the task is, or b"T" + how it ended
    L | token                        -> the keys delivered under the token, and which of them started
    D | due | seq                    -> queue, generation, record: tasks that wait for their time
    X | queue, partition | seq       -> the record, why and when it died
    Z | expires at | seq             -> ids whose end may be forgotten then
    F | frame id                     -> the answer that an enqueue frame got
    H | flow                         -> the floor: no row of the flow has a lower seq, but those under a lease
    Q | queue                        -> name, settings, counters, generation
    N | queue | first                -> the task names it has seen, numbered from first on
    P | session                      -> a worker: the hash of its secret, what it said of itself
    O | seq                          -> an operation under way, and where it stands
    M | name                         -> epoch, clock, sequence and floors

    flow = queue u32, partition u16, generation u32, rank u8 (255 - priority), name u16, key u32

Numbers are big-endian, so that the order of keys is the order of numbers.  Invariant: a
seq is given out once, so a ready key names one incarnation of one task for ever: a key
in an old lease row whose ready row is gone has been settled.
"""

from collections.abc import Iterable
from struct import Struct

import msgspec

from tq.core.errors import StoreTooNew
from tq.core.lifecycle import DeadReason
from tq.core.outcome import TaskResult
from tq.core.task import RECORD_FORMAT, RECORD_FORMAT_MIN, TaskRecord, TaskSpec
from tq.core.worker import WorkerInfo

# 2: a row for each new task name of a queue; before, all were in one row, without a first number.
ROWS_FORMAT = 2

READY, TASK, LEASE, DUE, DEAD, EXPIRY, FRAME = b"R", b"I", b"L", b"D", b"X", b"Z", b"F"
FLOW, QUEUE, NAMES, WORKER, OPERATION, META = b"H", b"Q", b"N", b"P", b"O", b"M"
ENDED = b"T"

_FLOW = Struct(">IHIBHI")
_DEAD_QUEUE = Struct(">IH")
_SCHEDULED = Struct(">II")
SEQ_BYTES = 8
FLOW_BYTES = _FLOW.size
READY_PREFIX_BYTES = 1 + FLOW_BYTES
_U64_MAX = b"\xff" * SEQ_BYTES


def u64(number: int) -> bytes:
    """Return *number* in eight bytes."""
    return number.to_bytes(SEQ_BYTES, "big")


def key_end(prefix: bytes) -> bytes:
    """Return the first key after all that start with *prefix* and are at most 8 bytes longer."""
    return prefix + _U64_MAX + b"\xff"


class FlowId(msgspec.Struct, frozen=True, gc=False):
    """What makes a flow: tasks of one flow are handed out strictly in the order of their seq.

    ``partition`` and ``key`` are 0 until a queue is spread and until fairness or limits
    give a flow a key; they are in every row from the first day.
    """

    queue: int
    generation: int
    rank: int
    name: int
    partition: int = 0
    key: int = 0

    def pack(self) -> bytes:
        """Return the part of a key that names the flow."""
        return _FLOW.pack(self.queue, self.partition, self.generation, self.rank, self.name, self.key)


def flow_of(key: bytes) -> FlowId:
    """Return the flow in a ready or a flow key."""
    queue, partition, generation, rank, name, flow_key = _FLOW.unpack_from(key, 1)
    return FlowId(queue, generation, rank, name, partition, flow_key)


def generation_prefix(letter: bytes, queue: int, generation: int) -> bytes:
    """Return the prefix of all ready or flow keys of one generation of a queue (partition 0)."""
    return letter + _FLOW.pack(queue, 0, generation, 0, 0, 0)[:10]


def seq_of(key: bytes) -> int:
    """Return the seq at the end of a ready, due or dead key."""
    return int.from_bytes(key[-SEQ_BYTES:], "big")


def due_key(due: int, seq: int) -> bytes:
    """Return the key of a task that waits until *due*."""
    return DUE + u64(due) + u64(seq)


def due_of(key: bytes) -> int:
    """Return the instant in a due or an expiry key."""
    return int.from_bytes(key[1 : 1 + SEQ_BYTES], "big")


def dead_prefix(queue: int) -> bytes:
    """Return the prefix of the dead letters of a queue (partition 0)."""
    return DEAD + _DEAD_QUEUE.pack(queue, 0)


def queue_of_dead(key: bytes) -> int:
    """Return the queue number in a dead key."""
    return int.from_bytes(key[1:5], "big")


# ------------------------------------------------------------------------------------------------ values

_encode = msgspec.msgpack.Encoder().encode

# A record is an array of up to 9 fields, of which the first two are the format and the id: this is
# the start of every record, so that the id is at a fixed place and a record can be put together
# from the bytes that came over the wire.
_RECORD_START = b"\x99" + _encode(RECORD_FORMAT) + b"\xc4\x10"
_ID_AT = len(_RECORD_START)
_ID_END = _ID_AT + 16


def encode_record(record: TaskRecord) -> bytes:
    """Return *record* as it is stored and delivered."""
    return _encode(record)


_decode_record = msgspec.msgpack.Decoder(TaskRecord).decode


def decode_record(value: bytes) -> TaskRecord:
    """Return what `encode_record` encoded.

    Raises:
        StoreTooNew: It is of a format that this version does not know.
    """
    try:
        return _decode_record(value)
    except msgspec.ValidationError:
        _check_format(msgspec.msgpack.decode(value))
        raise


def decode_records(values: Iterable[bytes]) -> list[TaskRecord]:
    """Return what `encode_record` encoded, for a page of them (raises as `decode_record`)."""
    try:
        return [_decode_record(value) for value in values]
    except msgspec.ValidationError:
        return [decode_record(value) for value in values]


def _check_format(record: list[object]) -> None:
    found = record[0]
    if not isinstance(found, int) or not RECORD_FORMAT_MIN <= found <= RECORD_FORMAT:
        raise StoreTooNew(f"the data has a task of format {found!r}; this version knows up to {RECORD_FORMAT}")


def id_in(record: bytes) -> bytes:
    """Return the task id in an encoded record."""
    return record[_ID_AT:_ID_END]


def record_tail(enqueued_at: int) -> bytes:
    """Return the end of a fresh record: its enqueue time, generation 1, no attempts, no losses."""
    return _encode(enqueued_at) + b"\x01\x00\x00\xc0"


def fresh_record(task_id: bytes, spec: bytes, payload: bytes, tail: bytes) -> bytes:
    """Return a record put together from encoded parts; equal to `encode_record` of the same fields."""
    size = len(payload)
    if size < 0x100:
        head = b"\xc4" + size.to_bytes(1, "big")
    elif size < 0x1_0000:
        head = b"\xc5" + size.to_bytes(2, "big")
    else:
        head = b"\xc6" + size.to_bytes(4, "big")
    return b"".join((_RECORD_START, task_id, spec, head, payload, tail))


def encode_spec(spec: TaskSpec) -> bytes:
    """Return *spec* as it stands in a record."""
    return _encode(spec)


def scheduled_value(queue: int, generation: int, record: bytes) -> bytes:
    """Return the value of a due row."""
    return _SCHEDULED.pack(queue, generation) + record


def split_scheduled(value: bytes) -> tuple[int, int, bytes]:
    """Return queue number, queue generation and record of a due row."""
    queue, generation = _SCHEDULED.unpack_from(value)
    return queue, generation, value[_SCHEDULED.size :]


class EndedRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a completed or cancelled task ended, kept under its id until ``expires_at``."""

    expires_at: int
    name: str
    queue: str
    priority: int
    enqueued_at: int
    generation: int
    outcome: TaskResult


def ended_value(row: EndedRow) -> bytes:
    """Return the value of an id row of an ended task."""
    return ENDED + _encode(row)


_decode_ended = msgspec.msgpack.Decoder(EndedRow).decode


def decode_ended(value: bytes) -> EndedRow:
    """Return what `ended_value` encoded."""
    return _decode_ended(value[1:])


class DeadRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A dead letter."""

    died_at: int
    expires_at: int
    reason: DeadReason
    record: TaskRecord


_decode_dead = msgspec.msgpack.Decoder(DeadRow).decode


def decode_dead(value: bytes) -> DeadRow:
    """Return a dead letter (raises as `decode_record`)."""
    try:
        return _decode_dead(value)
    except msgspec.ValidationError:
        _check_format(msgspec.msgpack.decode(value)[3])
        raise


class LeaseRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A delivery: ``keys`` by index, None once handed back; ``started`` are indexes."""

    session: bytes
    alone: bool
    keys: list[bytes | None]
    started: list[int]


decode_lease = msgspec.msgpack.Decoder(LeaseRow).decode


class QueueRow(msgspec.Struct, array_like=True, gc=False):
    """A queue: its settings and counters; ``pending`` counts ready rows, those under a lease included."""

    name: str
    generation: int = 1
    paused: bool = False
    pending: int = 0
    scheduled: int = 0
    dead: int = 0
    enqueued_total: int = 0
    completed_total: int = 0
    failed_total: int = 0
    lost_total: int = 0
    dead_total: int = 0
    cancelled_total: int = 0
    purged_total: int = 0


decode_queue = msgspec.msgpack.Decoder(QueueRow).decode

encode_names = _encode
decode_names = msgspec.msgpack.Decoder(list[str]).decode


def queue_key(letter: bytes, queue: int) -> bytes:
    """Return the key of a queue's row (letter `QUEUE`), or the start of those of its names (`NAMES`)."""
    return letter + queue.to_bytes(4, "big")


def names_key(queue: int, first: int) -> bytes:
    """Return the key of the names of a queue that are numbered from *first* on."""
    return queue_key(NAMES, queue) + first.to_bytes(2, "big")


def queue_of_names(key: bytes) -> int:
    """Return the queue number in the key of names."""
    return int.from_bytes(key[1:5], "big")


class WorkerRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A worker session."""

    secret_hash: bytes
    info: WorkerInfo
    registered_at: int


decode_worker = msgspec.msgpack.Decoder(WorkerRow).decode


class OperationRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An act too large for one change; ``cursor`` is the key after the last one dealt with.

    ``kind`` is ``purge`` (rows up to a generation of a queue: one operation each for the
    ready rows, the flows and the timeline), ``redrive`` or ``forget`` (dead letters older
    than the seq at the end of ``until``; of queue 0: those of all queues).
    """

    kind: str
    queue: int
    generation: int
    cursor: bytes
    until: bytes


decode_operation = msgspec.msgpack.Decoder(OperationRow).decode


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an enqueue frame was answered: the refused tasks as (index, code, text)."""

    refused: list[tuple[int, str, str]]


decode_answer = msgspec.msgpack.Decoder(Answer).decode


def encode_row(row: msgspec.Struct) -> bytes:
    """Return the value of a row."""
    return _encode(row)


def join_ids(ids: Iterable[bytes]) -> bytes:
    """Return the value of an expiry row."""
    return b"".join(ids)


def split_ids(value: bytes) -> list[bytes]:
    """Return the ids of an expiry row."""
    return [value[at : at + 16] for at in range(0, len(value), 16)]
