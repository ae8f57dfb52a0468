"""Enqueue: a frame of tasks becomes rows, exactly once.

Every frame carries an id.  Its answer is written in the same batch as its tasks, so a
resend, on any connection and after any crash, finds the answer and changes nothing.
Invariant: a frame is validated whole before its first write: a refusal writes nothing.
What it will write is counted then, so that no frame is a larger change than may be.
"""

from typing import NamedTuple

from tq.core.errors import BatchTooLarge, ErrorCode, InvalidArgument, OutcomeUnknown, PayloadTooLarge
from tq.core.ids import ID_BYTES, format_id, is_uuid7, made_at
from tq.core.lifecycle import Step
from tq.core.limits import (
    CHANGE_BYTES_MAX,
    COUNTED_FRAME_BYTES,
    COUNTED_SPEC_BYTES,
    COUNTED_TASK_BYTES,
    FRAME_TASKS_MAX,
)
from tq.core.task import TaskRecord, TaskSpec
from tq.core.times import MINUTE
from tq.engine.changes import Changes
from tq.engine.commands import Enqueue
from tq.engine.flows import Flow, QueuedTask
from tq.engine.meta import Meta
from tq.engine.places import moves
from tq.engine.queues import Queue, Queues
from tq.engine.rows import (
    FRAME,
    READY,
    TASK,
    Answer,
    decode_answer,
    encode_record,
    encode_row,
    encode_spec,
    fresh_record,
    record_tail,
    u64,
)

# Programs reuse a handful of specs; one that makes a new one for each task must not fill the memory with them.
SPECS_MAX = 16_384
# How far ahead of the broker's clock a frame id may be: the client corrected its clock by the Welcome.
_AHEAD_MS_MAX = 10 * MINUTE


class _Place(NamedTuple):
    """Where the tasks of one spec go."""

    spec: TaskSpec
    encoded: bytes
    queue: Queue
    flow: Flow


class Enqueuer:
    """Takes enqueue frames."""

    def __init__(self, meta: Meta, queues: Queues, *, payload_bytes_max: int, frame_memory_ms: int) -> None:
        self._meta = meta
        self._queues = queues
        self._payload_bytes_max = payload_bytes_max
        self._frame_memory_ms = frame_memory_ms
        # Specs that have been checked and have their place, as rows hold them.
        self._known: dict[TaskSpec, bytes] = {}

    def apply(self, command: Enqueue, now: int, changes: Changes) -> list[tuple[int, str, str]]:
        """Enqueue the tasks of a frame; returns those refused, as (index, code, text).

        Raises:
            InvalidArgument, PayloadTooLarge, BatchTooLarge, OutcomeUnknown, TooManyQueues:
                Nothing was written.
        """
        frame_key = FRAME + command.frame_id
        if not is_uuid7(command.frame_id):
            raise InvalidArgument(f"a frame id is a UUIDv7, 16 bytes; got {command.frame_id.hex()[:40]!r}")
        answered = changes.get(frame_key)
        if answered is not None:
            return decode_answer(answered).refused
        specs = self._check(command, now)
        refused = self._write(command, specs, now, changes)
        changes.writes[frame_key] = encode_row(Answer(refused))
        return refused

    def _check(self, command: Enqueue, now: int) -> list[bytes]:
        """Return the encoded specs of a frame that may be."""
        age_ms = now - made_at(command.frame_id)
        if age_ms > self._frame_memory_ms:
            raise OutcomeUnknown(
                f"frame {format_id(command.frame_id)} is {age_ms} ms old; answers are kept {self._frame_memory_ms} ms"
            )
        if -age_ms > _AHEAD_MS_MAX:
            raise InvalidArgument(f"frame {format_id(command.frame_id)} is {-age_ms} ms ahead of the broker's clock")
        tasks = command.tasks
        if len(tasks) > FRAME_TASKS_MAX or len(command.specs) > FRAME_TASKS_MAX:
            raise BatchTooLarge(
                f"{FRAME_TASKS_MAX} tasks a frame at most; got {len(tasks)} of {len(command.specs)} specs"
            )
        specs = self._check_specs(command.specs)
        sizes = [len(spec) + COUNTED_TASK_BYTES for spec in specs]
        spec_count = len(specs)
        payload_bytes_max = self._payload_bytes_max
        total = COUNTED_FRAME_BYTES + sum(2 * len(spec) + COUNTED_SPEC_BYTES for spec in specs)
        for index, task in enumerate(tasks):
            task_id, spec_index = task.id, task.spec_index
            # is_uuid7, written out: a call a task would cost a twentieth of the whole.
            if len(task_id) != ID_BYTES or task_id[6] >> 4 != 7 or task_id[8] >> 6 != 2:
                raise InvalidArgument(
                    f"task {index} of the frame: an id is a UUIDv7, 16 bytes; got {task_id.hex()[:40]!r}"
                )
            if not 0 <= spec_index < spec_count:
                raise InvalidArgument(f"task {index} of the frame: spec {spec_index} of {spec_count}")
            size = len(task.payload)
            if size > payload_bytes_max:
                raise PayloadTooLarge(
                    f"task {format_id(task_id)} ({command.specs[spec_index].name!r}): "
                    f"a payload of {size} bytes; the limit is {payload_bytes_max}"
                )
            total += size + sizes[spec_index]
        if total > CHANGE_BYTES_MAX and (len(tasks) > 1 or spec_count > 1):
            raise BatchTooLarge(
                f"{CHANGE_BYTES_MAX} bytes a frame at most, as its rows are counted; "
                f"got {total} for {len(tasks)} tasks of {spec_count} specs: send fewer at a time"
            )
        return specs

    def _check_specs(self, specs: list[TaskSpec]) -> list[bytes]:
        """Return *specs* as rows hold them, once it is sure that each has a place, or may have one."""
        found = [self._known.get(spec) for spec in specs]
        fresh = [spec for spec, encoded in zip(specs, found, strict=True) if encoded is None]
        for spec in fresh:
            try:
                spec.check()
            except ValueError as error:
                raise InvalidArgument(str(error)) from None
        if fresh:
            self._queues.check_room(fresh)
        return [encoded or encode_spec(spec) for spec, encoded in zip(specs, found, strict=True)]

    @moves(None, Step.ENQUEUE, writes=(READY,))
    def _write(self, command: Enqueue, specs: list[bytes], now: int, changes: Changes) -> list[tuple[int, str, str]]:
        refused: list[tuple[int, str, str]] = []
        writes, get = changes.writes, changes.get
        seq = self._meta.next_seq(changes, len(command.tasks))
        places = [self._place(spec, encoded, seq, changes) for spec, encoded in zip(command.specs, specs, strict=True)]
        counts = [0] * len(places)
        tail = record_tail(now)
        for index, task in enumerate(command.tasks):
            task_id = task.id
            id_key = TASK + task_id
            if get(id_key) is not None:
                refused.append((index, ErrorCode.DUPLICATE_TASK.value, f"a task {format_id(task_id)} exists already"))
                continue
            spec, encoded, _, flow = places[task.spec_index]
            record = fresh_record(task_id, encoded, task.payload, tail)
            key = flow.prefix + u64(seq)
            writes[key] = record
            writes[id_key] = key
            if flow.accepts_heads():
                flow.append(QueuedTask(seq, task_id, flow, spec, record, now))
            else:
                flow.append_stored(seq)
            counts[task.spec_index] += 1
            seq += 1
        for place, count in zip(places, counts, strict=True):
            row = place.queue.row
            row.pending += count
            row.enqueued_total += count
            place.queue.wake(place.flow)
            self._queues.touch(place.queue)
        return refused

    def _place(self, spec: TaskSpec, encoded: bytes, seq: int, changes: Changes) -> _Place:
        queue = self._queues.provide(spec.queue)
        if spec not in self._known:
            if len(self._known) >= SPECS_MAX:
                self._known.clear()
            self._known[spec] = encoded
        return _Place(spec, encoded, queue, self._queues.flow_for(queue, spec, seq, changes))


def put_ready(meta: Meta, queues: Queues, queue: Queue, record: TaskRecord, changes: Changes) -> None:
    """Put a task that exists already (its time has come, or it is redriven) at the end of its flow."""
    seq = meta.next_seq(changes)
    flow = queues.flow_for(queue, record.spec, seq, changes)
    encoded = encode_record(record)
    task = QueuedTask.of(record, encoded, flow, seq)
    changes.writes[task.key] = encoded
    changes.writes[TASK + record.id] = task.key
    queue.row.pending += 1
    queues.touch(queue)
    if task.suspect:
        # One that failed, rather than died, this time: it stays one.
        flow.append_aside(task)
    elif flow.accepts_heads():
        flow.append(task)
    else:
        flow.append_stored(seq)
    queue.wake(flow)
