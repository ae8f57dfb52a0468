"""Tasks into frames: how many fit into one `Enqueue`, and what a client refuses by itself.

A broker takes a frame as one atomic change, which bounds its tasks and its bytes.
Invariant: the tasks of an iterable are taken in order, each exactly once, and each
becomes a row of a frame or a refusal.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from tq.client.errors import EnqueueRefused, RefusedTask
from tq.client.ids import ClientIds
from tq.core.errors import BrokerError, ErrorCode, broker_error
from tq.core.ids import ID_BYTES, TaskId, format_id, is_uuid7
from tq.core.limits import COUNTED_SPEC_BYTES, FRAME_TASK_BYTES_MAX
from tq.core.task import NewTask, Task, TaskSpec
from tq.protocol.messages import Enqueue, Enqueued, Limits

# Users reuse a handful of specs; a program that makes a new one for each task must not grow for ever.
_SPECS_MAX = 1_024


class Batch(NamedTuple):
    """One frame; its tasks are those from number *first* on of the iterable."""

    first: int
    frame: Enqueue


class EnqueueOutcome:
    """What became of the tasks of one `enqueue_many`, by their number in the iterable."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._ids: list[TaskId | None] = []
        self._refused: list[RefusedTask] = []

    @property
    def taken(self) -> int:
        """How many tasks have been taken from the iterable."""
        return len(self._ids)

    def sent(self, frame: Enqueue) -> None:
        """Note that the next tasks of the iterable are in *frame*."""
        self._ids += [TaskId(task.id) for task in frame.tasks]

    def flawed(self, code: ErrorCode, text: str) -> None:
        """Note that the next task of the iterable is not worth sending."""
        self._refused.append(RefusedTask(len(self._ids), code, text))
        self._ids.append(None)

    def answered(self, batch: Batch, answer: Enqueued) -> None:
        """Note what the broker has refused of a frame."""
        for refused in answer.refused:
            self._refuse(batch.first + refused.index, broker_error(refused.code, refused.text).code, refused.text)

    def refused(self, batch: Batch, error: BrokerError) -> None:
        """Note that none of a frame is enqueued, and that going on is of no use."""
        self.is_stopped = True
        for index in range(batch.first, batch.first + len(batch.frame.tasks)):
            self._refuse(index, error.code, str(error))

    def ids(self) -> list[TaskId]:
        """Return the ids of the tasks, in their order.

        Raises:
            EnqueueRefused: Some are not enqueued.
        """
        if self._refused:
            raise EnqueueRefused(sorted(self._refused, key=lambda refused: refused.index), self._ids)
        return [task_id for task_id in self._ids if task_id is not None]

    def _refuse(self, index: int, code: ErrorCode, text: str) -> None:
        self._refused.append(RefusedTask(index, code, text))
        self._ids[index] = None


class FrameCutter:
    """Cuts the tasks of one client into frames, and gives ids to those that have none."""

    def __init__(self, ids: ClientIds) -> None:
        self._ids = ids
        # How long each spec is; threads share it.
        self._spec_bytes: dict[TaskSpec, int] = {}
        # The last that was found good, this very object: an equal one may not be. 128.0 equals 128, and one of
        # them can be read.
        self._good: TaskSpec | None = None

    def check(self, task: Task, limits: Limits) -> None:
        """Raise what a broker would answer to *task*.

        Raises:
            PayloadTooLarge: Its payload is over the broker's limit.
            InvalidArgument: Its spec, its payload or its id is none that a broker takes.
        """
        flaw = self._flaw(task, limits)
        if flaw is not None:
            raise broker_error(flaw[0].value, flaw[1])

    def single(self, task: Task) -> Enqueue:
        """Return the frame of one task, which has been checked."""
        if task.id is not None:
            return Enqueue(self._ids.make(), [task.spec], [NewTask(task.id, 0, task.payload)])
        frame_id, task_id = self._ids.make_many(2)
        return Enqueue(frame_id, [task.spec], [NewTask(task_id, 0, task.payload)])

    def cut(self, tasks: Iterable[Task], limits: Limits, outcome: EnqueueOutcome) -> Iterator[Batch]:
        """Yield the frames that carry *tasks*, taking no more tasks than the next frame needs.

        What is not worth sending is noted in *outcome*, and so are the ids of the rest.
        """
        cut = _Cut()
        payload_bytes_max = limits.payload_bytes_max
        for task in tasks:
            # The common case, a task like the one before it, is checked without a call.
            if (
                type(task) is not Task
                or task.spec is not cut.spec
                or task.id is not None
                or type(task.payload) is not bytes
                or len(task.payload) > payload_bytes_max
            ):
                flaw = self._flaw(task, limits)
                if flaw is not None:
                    # A frame ends here, so that the numbers of its tasks follow each other.
                    if cut.rows:
                        yield self._batch(cut, outcome)
                        cut = _Cut()
                    outcome.flawed(*flaw)
                    continue
                cut.use(task.spec, self._size(task.spec))
            spec, payload = task.spec, task.payload
            size = len(payload) + cut.spec_bytes
            rows = cut.rows
            if rows and (len(rows) >= limits.tasks_per_frame_max or cut.size + size > FRAME_TASK_BYTES_MAX):
                spec_bytes = cut.spec_bytes
                yield self._batch(cut, outcome)
                cut = _Cut()
                cut.use(spec, spec_bytes)
                rows = cut.rows
            rows.append((task.id, cut.spec_index, payload))
            cut.size += size
        if cut.rows:
            yield self._batch(cut, outcome)

    def _batch(self, cut: "_Cut", outcome: EnqueueOutcome) -> Batch:
        missing = sum(1 for task_id, _, _ in cut.rows if task_id is None)
        frame_id, *fresh = self._ids.make_many(missing + 1)
        following = iter(fresh)
        tasks = [NewTask(task_id or next(following), index, payload) for task_id, index, payload in cut.rows]
        batch = Batch(outcome.taken, Enqueue(frame_id, list(cut.specs), tasks))
        outcome.sent(batch.frame)
        return batch

    def _size(self, spec: TaskSpec) -> int:
        size = self._spec_bytes.get(spec)
        if size is None:
            if len(self._spec_bytes) >= _SPECS_MAX:
                self._spec_bytes.clear()
            size = self._spec_bytes[spec] = len(msgspec.msgpack.encode(spec))
        return size

    def _flaw(self, task: object, limits: Limits) -> tuple[ErrorCode, str] | None:
        if not isinstance(task, Task):
            return ErrorCode.INVALID_ARGUMENT, f"what is enqueued is a Task, as Task.build makes it; got {task!r:.100}"
        spec, task_id = task.spec, task.id
        if not isinstance(spec, TaskSpec):
            return ErrorCode.INVALID_ARGUMENT, f"the spec of a task is a TaskSpec; got {spec!r}"
        if spec is not self._good:
            try:
                spec.check()
                self._size(spec)
            except (TypeError, ValueError) as error:
                return ErrorCode.INVALID_ARGUMENT, str(error)
            self._good = spec
        if type(task.payload) is not bytes:
            return ErrorCode.INVALID_ARGUMENT, (
                f"task {spec.name!r}: a payload is bytes, as Task.build makes them; got a {type(task.payload).__name__}"
            )
        if len(task.payload) > limits.payload_bytes_max:
            return ErrorCode.PAYLOAD_TOO_LARGE, (
                f"task {spec.name!r}: the payload may have {limits.payload_bytes_max} bytes; got {len(task.payload)}"
            )
        if task_id is not None and not (type(task_id) is bytes and is_uuid7(task_id)):
            is_uuid = type(task_id) is bytes and len(task_id) == ID_BYTES
            text = format_id(task_id) if is_uuid else repr(task_id)
            return ErrorCode.INVALID_ARGUMENT, f"task {spec.name!r}: an id is a UUIDv7 of {ID_BYTES} bytes; got {text}"
        return None


class _Cut:
    """The frame that is being filled."""

    __slots__ = ("rows", "size", "spec", "spec_bytes", "spec_index", "specs")

    def __init__(self) -> None:
        self.rows: list[tuple[bytes | None, int, bytes]] = []
        self.size = 0
        self.specs: dict[TaskSpec, int] = {}
        self.spec: TaskSpec | None = None
        self.spec_index = 0
        self.spec_bytes = 0

    def use(self, spec: TaskSpec, spec_bytes: int) -> None:
        """Let the next rows be tasks of *spec*."""
        self.spec, self.spec_bytes = spec, spec_bytes
        if spec not in self.specs:
            self.size += 2 * spec_bytes + COUNTED_SPEC_BYTES
        self.spec_index = self.specs.setdefault(spec, len(self.specs))
