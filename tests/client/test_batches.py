"""Tasks into frames: none lost, none twice, in order, within the limits."""

import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from tq.client.batches import EnqueueOutcome, FrameCutter
from tq.client.errors import EnqueueRefused
from tq.client.ids import ClientIds
from tq.core.errors import BrokerStoreFull, ErrorCode, InvalidArgument, PayloadTooLarge
from tq.core.ids import IdMaker, TaskId, is_uuid7
from tq.core.limits import FRAME_TASK_BYTES_MAX
from tq.core.task import NewTask, Task, TaskSpec
from tq.protocol.messages import Enqueued, Limits, RefusedEnqueue

LIMITS = Limits(1 << 20, 1_000, 4, 2_000, 10_000)
SPECS = [TaskSpec("a"), TaskSpec("b", "other"), TaskSpec("a")]
BAD = [TaskSpec(""), TaskSpec("a", priority=256)]

payloads = st.integers(0, 1_200).map(bytes)
new_ids = IdMaker(lambda: 1_000, os.urandom)
tasks = st.lists(
    st.builds(
        Task,
        st.sampled_from(SPECS * 3 + BAD),
        payloads,
        st.none() | st.builds(lambda _: TaskId(new_ids.make()), st.none()) | st.just(TaskId(bytes(16))),
    ),
    max_size=30,
)


def new_cutter() -> FrameCutter:
    return FrameCutter(ClientIds(lambda: 1_000, os.urandom))


@given(tasks=tasks)
def test_each_task_becomes_a_row_of_a_frame_or_a_refusal_in_order(tasks: list[Task]) -> None:
    outcome = EnqueueOutcome()

    batches = list(new_cutter().cut(tasks, LIMITS, outcome))

    seen: dict[int, tuple[TaskSpec, bytes]] = {}
    for batch in batches:
        assert 0 < len(batch.frame.tasks) <= LIMITS.tasks_per_frame_max
        assert is_uuid7(batch.frame.frame_id)
        assert len(set(batch.frame.specs)) == len(batch.frame.specs)
        for place, task in enumerate(batch.frame.tasks, batch.first):
            assert is_uuid7(task.id)
            assert tasks[place].id in {None, task.id}
            seen[place] = batch.frame.specs[task.spec_index], task.payload
    flawed = [
        place
        for place, task in enumerate(tasks)
        if task.spec in BAD or len(task.payload) > LIMITS.payload_bytes_max or task.id == bytes(16)
    ]
    assert list(seen) == [place for place in range(len(tasks)) if place not in flawed]
    assert seen == {place: (tasks[place].spec, tasks[place].payload) for place in seen}
    assert outcome.taken == len(tasks)
    if flawed:
        with pytest.raises(EnqueueRefused) as caught:
            outcome.ids()
        assert [refused.index for refused in caught.value.refused] == flawed
    else:
        assert outcome.ids() == [task.id for batch in batches for task in batch.frame.tasks]


@given(sizes=st.lists(st.integers(0, 200_000), max_size=12))
def test_a_frame_of_several_tasks_keeps_within_its_bytes(sizes: list[int]) -> None:
    limits = Limits(1 << 20, 512 * 1024, 1_000, 2_000, 10_000)
    spec_bytes = len(msgspec.msgpack.encode(SPECS[0]))

    for batch in new_cutter().cut((Task(SPECS[0], bytes(size)) for size in sizes), limits, EnqueueOutcome()):
        size = sum(len(task.payload) + spec_bytes for task in batch.frame.tasks)
        assert size <= FRAME_TASK_BYTES_MAX or len(batch.frame.tasks) == 1


def test_frames_of_tasks_that_share_no_spec_are_such_as_a_broker_takes() -> None:
    limits = Limits(1 << 20, 512 * 1024, 1_000, 2_000, 10_000)
    specs = [TaskSpec(f"{number:04}" + "n" * 200, f"q{number}" + "q" * 100) for number in range(2_000)]

    batches = list(new_cutter().cut([Task(spec, b"") for spec in specs], limits, EnqueueOutcome()))

    assert sum(len(batch.frame.tasks) for batch in batches) == 2_000
    for _, frame in batches:
        lengths = [len(msgspec.msgpack.encode(spec)) for spec in frame.specs]
        tasks = sum(128 + lengths[task.spec_index] + len(task.payload) for task in frame.tasks)
        assert 256 + sum(192 + 2 * length for length in lengths) + tasks <= 524_288


def test_no_more_tasks_are_taken_than_the_next_frame_needs() -> None:
    taken = []

    def endless() -> object:
        while True:
            taken.append(1)
            yield Task(SPECS[0], b"")

    batches = new_cutter().cut(endless(), LIMITS, EnqueueOutcome())  # type: ignore[arg-type]
    next(batches)

    # One more than the frame has room for shows that it is full.
    assert len(taken) == LIMITS.tasks_per_frame_max + 1


def test_specs_are_remembered_but_not_without_end() -> None:
    cutter = new_cutter()
    limits = Limits(1 << 20, 1_000, 1_000, 2_000, 10_000)

    frames = list(cutter.cut((Task(TaskSpec(f"name {n}"), b"") for n in range(5_000)), limits, EnqueueOutcome()))

    assert sum(len(batch.frame.tasks) for batch in frames) == 5_000
    assert len(cutter._spec_bytes) <= 1_024


@pytest.mark.parametrize(
    "task, error",
    [
        (Task(SPECS[0], bytes(1_001)), PayloadTooLarge),
        (Task(BAD[0], b""), InvalidArgument),
        (Task(SPECS[0], b"", TaskId(b"x")), InvalidArgument),
    ],
)
def test_a_single_task_is_checked_alike(task: Task, error: type[Exception]) -> None:
    with pytest.raises(error):
        new_cutter().check(task, LIMITS)


def test_the_frame_of_a_single_task_keeps_its_id_or_gives_one() -> None:
    cutter, mine = new_cutter(), TaskId(new_ids.make())
    cutter.check(Task(SPECS[0], b"x"), LIMITS)

    kept, given_one = cutter.single(Task(SPECS[0], b"x", mine)), cutter.single(Task(SPECS[0], b"x"))

    assert kept.tasks == [NewTask(mine, 0, b"x")]
    assert is_uuid7(given_one.tasks[0].id)
    assert kept.specs == given_one.specs == [SPECS[0]]


def test_answers_are_told_by_the_place_in_the_iterable() -> None:
    outcome = EnqueueOutcome()
    first, second = new_cutter().cut([Task(SPECS[0], b"")] * 8, LIMITS, outcome)

    outcome.answered(
        second, Enqueued([RefusedEnqueue(1, "duplicate_task", "exists"), RefusedEnqueue(2, "a code of tomorrow", "?")])
    )
    outcome.answered(first, Enqueued())

    with pytest.raises(EnqueueRefused) as caught:
        outcome.ids()
    assert [(one.index, one.code) for one in caught.value.refused] == [
        (5, ErrorCode.DUPLICATE_TASK),
        (6, ErrorCode.INTERNAL),
    ]
    assert [place for place, task_id in enumerate(caught.value.ids) if task_id is None] == [5, 6]


def test_a_refused_frame_stops_the_rest() -> None:
    outcome = EnqueueOutcome()
    [batch] = new_cutter().cut([Task(SPECS[0], b"")] * 3, LIMITS, outcome)

    outcome.refused(batch, BrokerStoreFull("full"))

    assert outcome.is_stopped
    with pytest.raises(EnqueueRefused, match="3 of 3 tasks were refused; the first is number 0: store_full: full"):
        outcome.ids()


@pytest.mark.parametrize(
    ("flawed", "complaint"),
    [
        ("mail.send", "what is enqueued is a Task"),
        (Task("mail.send", b""), "the spec of a task is a TaskSpec"),  # type: ignore[arg-type]
        (Task(TaskSpec(["a"]), b""), "a task name is text"),  # type: ignore[arg-type]
        (Task(TaskSpec("a", priority=128.0), b""), "priority must be a whole number"),  # type: ignore[arg-type]
        (Task(TaskSpec("a", retry=None), b""), "retry must be a RetryPolicy"),  # type: ignore[arg-type]
        (Task(TaskSpec("a"), "text"), "a payload is bytes"),  # type: ignore[arg-type]
        (Task(TaskSpec("a"), bytearray(3)), "a payload is bytes"),  # type: ignore[arg-type]
        (Task(TaskSpec("a"), b"", "x" * 16), "an id is a UUIDv7 of 16 bytes"),  # type: ignore[arg-type]
    ],
)
def test_what_a_broker_could_not_read_is_refused_and_the_others_are_sent(flawed: Any, complaint: str) -> None:
    cutter, outcome = new_cutter(), EnqueueOutcome()
    # Equal to the spec with 128.0, and known before it.
    fine = Task(TaskSpec("a"), b"x")

    batches = list(cutter.cut([fine, flawed, fine], LIMITS, outcome))

    assert [len(batch.frame.tasks) for batch in batches] == [1, 1]
    with pytest.raises(EnqueueRefused, match=complaint) as caught:
        outcome.ids()
    assert [(each.index, each.code) for each in caught.value.refused] == [(1, ErrorCode.INVALID_ARGUMENT)]
    with pytest.raises(InvalidArgument, match=complaint):
        cutter.check(flawed, LIMITS)
