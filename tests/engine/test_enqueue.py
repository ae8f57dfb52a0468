"""Enqueue: a frame is taken whole, once, or not at all."""

import msgspec
import pytest

from tests.engine.harness import START, Driver, a_spec, bytes_of, ready_seqs
from tq.core.errors import BatchTooLarge, BrokerError, InvalidArgument, OutcomeUnknown, PayloadTooLarge, TooManyQueues
from tq.core.ids import compose
from tq.core.limits import (
    CHANGE_BYTES_MAX,
    COUNTED_FRAME_BYTES,
    COUNTED_SPEC_BYTES,
    COUNTED_TASK_BYTES,
    FRAME_TASKS_MAX,
)
from tq.core.task import RECORD_FORMAT, NewTask, TaskRecord
from tq.core.times import HOUR, MINUTE, Timestamp
from tq.engine import commands as c, rows as r
from tq.engine.engine import EngineSettings
from tq.engine.enqueue import SPECS_MAX
from tq.engine.queues import NAMES_MAX


def test_a_frame_becomes_exactly_these_rows() -> None:
    driver = Driver()
    spec = a_spec(priority=200)
    frame = driver.frame(2, b"payload", spec)
    changes = driver.engine.changes()

    assert driver.engine.apply(frame, driver.now, changes) == []
    driver.engine.seal(driver.now, changes)

    flow = r.FlowId(1, 1, 55, 0)
    keys = [r.READY + flow.pack() + r.u64(seq) for seq in (1, 2)]
    records = [r.encode_record(TaskRecord(RECORD_FORMAT, task.id, spec, b"payload", START)) for task in frame.tasks]
    changes.writes.pop(r.META + b"seq")
    assert changes.writes == {
        keys[0]: records[0],
        keys[1]: records[1],
        r.TASK + frame.tasks[0].id: keys[0],
        r.TASK + frame.tasks[1].id: keys[1],
        r.FLOW + flow.pack(): r.u64(1),
        r.FRAME + frame.frame_id: r.encode_row(r.Answer([])),
        r.names_key(1, 0): r.encode_names(["t"]),
        r.queue_key(r.QUEUE, 1): r.encode_row(r.QueueRow("q", pending=2, enqueued_total=2)),
    }
    assert changes.promised


def test_a_resend_is_answered_the_same_and_changes_nothing() -> None:
    driver = Driver()
    (taken,) = driver.enqueue()
    frame = c.Enqueue(driver.new_id(), [a_spec()], [NewTask(driver.new_id(), 0, b""), NewTask(taken, 0, b"")])
    first = driver.do(frame)
    before = dict(driver.rows.rows)

    assert [index for index, _, _ in first] == [1]
    assert driver.do(frame) == first
    assert driver.rows.rows == before


def test_a_resend_in_the_same_batch_changes_nothing() -> None:
    driver = Driver()
    frame = driver.frame(3)
    changes = driver.engine.changes()

    driver.engine.apply(frame, driver.now, changes)
    writes = dict(changes.writes)
    assert driver.engine.apply(frame, driver.now, changes) == []

    assert changes.writes == writes
    driver.finish(changes)
    assert driver.queue().ready == 3


def test_a_resend_after_a_restart_changes_nothing() -> None:
    driver = Driver()
    frame = driver.frame(3)
    driver.do(frame)
    driver.restart()

    assert driver.do(frame) == []
    assert (driver.queue().ready, driver.queue().enqueued_total) == (3, 3)


def test_a_resend_after_its_tasks_have_ended_makes_no_new_ones() -> None:
    driver = Driver()
    frame = driver.frame(1, spec=a_spec(result_ttl_ms=0))
    driver.do(frame)
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker))

    driver.do(frame)

    assert driver.take(worker) == []
    assert driver.queue().ready == 0


def test_an_answer_is_remembered_for_as_long_as_a_frame_is_taken() -> None:
    driver = Driver()
    frame = driver.frame()
    driver.do(frame)
    driver.now += driver.settings.frame_memory_ms
    driver.tick()

    assert driver.do(frame) == []
    assert driver.queue().enqueued_total == 1


def test_a_frame_older_than_the_memory_is_refused() -> None:
    driver = Driver()
    frame = driver.frame()
    driver.now += driver.settings.frame_memory_ms + 1

    error = driver.refused(frame, OutcomeUnknown)

    assert f"is {HOUR + 1} ms old; answers are kept {HOUR} ms" in str(error)


def test_a_frame_from_the_future_is_refused() -> None:
    driver = Driver()
    early = c.Enqueue(compose(Timestamp(START + 10 * MINUTE), 1), [a_spec()], [NewTask(driver.new_id(), 0, b"")])
    too_early = c.Enqueue(
        compose(Timestamp(START + 10 * MINUTE + 1), 1), [a_spec()], [NewTask(driver.new_id(), 0, b"")]
    )

    assert driver.do(early) == []
    driver.refused(too_early, InvalidArgument)


def test_a_task_twice_in_a_frame_is_enqueued_once() -> None:
    driver = Driver()
    task_id = driver.new_id()
    frame = c.Enqueue(
        driver.new_id(), [a_spec(), a_spec(priority=1)], [NewTask(task_id, 0, b"1"), NewTask(task_id, 1, b"2")]
    )

    refused = driver.do(frame)

    assert [(index, code) for index, code, _ in refused] == [(1, "duplicate_task")]
    assert (driver.view(task_id).priority, driver.queue().ready) == (128, 1)


@pytest.mark.parametrize("end", ["ready", "running", "scheduled", "dead", "completed", "cancelled"])
def test_a_task_whose_id_is_taken_is_refused_wherever_the_other_is(end: str) -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    bring(driver, task_id, end)

    refused = driver.do(
        c.Enqueue(driver.new_id(), [a_spec()], [NewTask(task_id, 0, b""), NewTask(driver.new_id(), 0, b"")])
    )

    assert [(index, code) for index, code, _ in refused] == [(0, "duplicate_task")]
    assert driver.state(task_id) == end


def bring(driver: Driver, task_id: bytes, state: str) -> None:
    if state == "cancelled":
        driver.do(c.Cancel([task_id]))
    if state in {"ready", "cancelled"}:
        return
    worker = driver.worker(window=1)
    (held,) = driver.take(worker)
    match state:
        case "scheduled":
            driver.fail(worker, held, retry_after_ms=1_000)
        case "dead":
            driver.fail(worker, held, reject=True)
        case "completed":
            driver.complete(worker, held)
        case _:
            pass


def test_an_empty_frame_is_answered_and_remembered() -> None:
    driver = Driver()
    frame = c.Enqueue(driver.new_id(), [], [])

    assert driver.do(frame) == []
    assert driver.rows.get(r.FRAME + frame.frame_id) is not None


GOOD = compose(Timestamp(START), 77)
OTHER = compose(Timestamp(START), 78)
MANY = [a_spec(name=f"t{number}") for number in range(FRAME_TASKS_MAX)]


@pytest.mark.parametrize(
    ("frame", "kind", "named"),
    [
        (c.Enqueue(b"short", [a_spec()], [NewTask(GOOD, 0, b"")]), InvalidArgument, "a frame id is a UUIDv7"),
        (c.Enqueue(GOOD, [a_spec(priority=256)], [NewTask(OTHER, 0, b"")]), InvalidArgument, "priority"),
        (c.Enqueue(GOOD, [a_spec(queue="no good")], [NewTask(OTHER, 0, b"")]), InvalidArgument, "queue name"),
        (c.Enqueue(GOOD, [a_spec()], [NewTask(b"x" * 16, 0, b"")]), InvalidArgument, "task 0 of the frame: an id"),
        (c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER[:8] + b"\0" + OTHER[9:], 0, b"")]), InvalidArgument, "UUIDv7"),
        (c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER, 1, b"")]), InvalidArgument, "spec 1 of 1"),
        (c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER, -1, b"")]), InvalidArgument, "spec -1 of 1"),
        (c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER, 0, bytes(256 * 1024 + 1))]), PayloadTooLarge, "limit is 262144"),
        (
            c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER, 0, b"")] * (FRAME_TASKS_MAX + 1)),
            BatchTooLarge,
            "got 1001 of 1 specs",
        ),
        (c.Enqueue(GOOD, [*MANY, a_spec()], []), BatchTooLarge, "got 0 of 1001 specs"),
        (
            c.Enqueue(GOOD, [a_spec()], [NewTask(OTHER, 0, bytes(200_000))] * 3),
            BatchTooLarge,
            f"{CHANGE_BYTES_MAX} bytes a frame at most",
        ),
    ],
)
def test_a_wrong_frame_is_refused_whole(frame: c.Enqueue, kind: type[BrokerError], named: str) -> None:
    driver = Driver()
    driver.enqueue(2, name="other")

    error = driver.refused(frame, kind)

    assert named in str(error)


def test_a_wrong_task_at_the_end_keeps_the_good_ones_before_it_out() -> None:
    driver = Driver()
    frame = driver.frame(3)
    wrong = msgspec.structs.replace(frame, tasks=[*frame.tasks, NewTask(b"", 0, b"")])

    driver.refused(wrong, InvalidArgument)
    assert driver.do(frame) == []


def test_one_payload_may_be_as_large_as_the_limit() -> None:
    driver = Driver(settings=EngineSettings(payload_bytes_max=512 * 1024))

    (task_id,) = driver.enqueue(payload=bytes(512 * 1024))

    assert driver.view(task_id).payload_bytes == 512 * 1024


@pytest.mark.parametrize("count", [2, 7, 1_000])
def test_a_frame_fills_its_change_to_the_last_byte_that_it_may_and_no_further(count: int) -> None:
    driver = Driver(checked=False)
    spec = a_spec()
    encoded = len(r.encode_spec(spec))
    room = (
        CHANGE_BYTES_MAX
        - COUNTED_FRAME_BYTES
        - COUNTED_SPEC_BYTES
        - 2 * encoded
        - count * (COUNTED_TASK_BYTES + encoded)
    )
    sizes = [room // count] * (count - 1) + [room - room // count * (count - 1)]
    ids = [driver.new_id() for _ in sizes]

    def frame(more: int) -> c.Enqueue:
        payloads = [bytes(size) for size in [*sizes[:-1], sizes[-1] + more]]
        tasks = [NewTask(each, 0, payload) for each, payload in zip(ids, payloads, strict=True)]
        return c.Enqueue(driver.new_id(), [spec], tasks)

    error = driver.refused(frame(1), BatchTooLarge)
    assert driver.do(frame(0), dispatch=False) == []

    assert f"got {CHANGE_BYTES_MAX + 1} for {count} tasks of 1 specs" in str(error)
    assert 0.9 * CHANGE_BYTES_MAX < bytes_of(driver.last.writes) <= CHANGE_BYTES_MAX


def test_the_names_of_a_frame_count_too() -> None:
    driver = Driver(checked=False)
    specs = [a_spec(name=f"{number:04}" + "n" * 251, queue=f"q{number}" + "n" * 120) for number in range(1_000)]
    tasks = [NewTask(driver.new_id(), number, b"") for number in range(1_000)]

    driver.refused(c.Enqueue(driver.new_id(), specs, tasks), BatchTooLarge)
    driver.refused(c.Enqueue(driver.new_id(), specs, []), BatchTooLarge)
    driver.refused(c.Enqueue(driver.new_id(), specs, tasks[:1]), BatchTooLarge)

    assert driver.do(c.Enqueue(driver.new_id(), specs[:300], tasks[:300]), dispatch=False) == []
    assert bytes_of(driver.last.writes) <= CHANGE_BYTES_MAX


def test_a_frame_of_which_all_is_refused_is_no_larger_a_change() -> None:
    driver = Driver(checked=False)
    frame = driver.frame(1_000)
    driver.do(frame)

    refused = driver.do(msgspec.structs.replace(frame, frame_id=driver.new_id()))

    assert len(refused) == 1_000
    assert bytes_of(driver.last.writes) <= COUNTED_FRAME_BYTES + COUNTED_SPEC_BYTES + 1_000 * COUNTED_TASK_BYTES


def test_a_frame_that_would_make_one_queue_too_many_is_refused() -> None:
    driver = Driver(settings=EngineSettings(queues_max=2))
    driver.enqueue(queue="a")
    frame = c.Enqueue(GOOD, [a_spec(queue="a"), a_spec(queue="b"), a_spec(queue="c")], [NewTask(OTHER, 0, b"")])

    error = driver.refused(frame, TooManyQueues)

    assert "1 queues exist and 2 may" in str(error)
    driver.enqueue(queue="b")
    driver.enqueue(queue="a")


def test_a_frame_that_would_make_one_task_name_too_many_is_refused() -> None:
    driver = Driver(checked=False)
    for start in range(0, NAMES_MAX, FRAME_TASKS_MAX):
        specs = [a_spec(name=f"t{start + number}") for number in range(FRAME_TASKS_MAX)]
        assert driver.do(c.Enqueue(driver.new_id(), specs, [])) == []

    error = driver.refused(c.Enqueue(GOOD, [a_spec(name="one more")], []), InvalidArgument)

    assert f"{NAMES_MAX} different task names at most" in str(error)
    driver.enqueue(name="t5")
    driver.enqueue(name="t", queue="other")


def test_checking_a_frame_looks_at_no_queue_but_its_own() -> None:
    driver = Driver(checked=False)
    for number in range(0, 2_000, 500):
        specs = [a_spec(queue=f"q{number + each}") for each in range(500)]
        driver.do(c.Enqueue(driver.new_id(), specs, []))
    driver.rows.forget_counts()

    driver.enqueue(queue="q7")

    assert driver.rows.reads <= 2


def test_seqs_follow_the_order_of_the_frame() -> None:
    driver = Driver()
    ids = driver.enqueue(5)
    driver.enqueue(2)

    listed, _ = driver.do(c.ListTasks("ready", "q", 10, None))

    assert ready_seqs(driver.rows) == list(range(1, 8))
    assert [view.id for view in listed][:5] == ids


def test_a_spec_that_was_refused_once_is_refused_again() -> None:
    driver = Driver(settings=EngineSettings(queues_max=1))
    driver.enqueue(queue="q")

    for spec, error in ((a_spec(queue="other"), TooManyQueues), (a_spec(priority=256), InvalidArgument)) * 2:
        with pytest.raises(error):
            driver.do(driver.frame(1, spec=spec))


def test_a_spec_is_checked_again_after_so_many_others_and_means_the_same() -> None:
    driver = Driver(checked=False)
    specs = [a_spec(timeout_ms=number + 1) for number in range(SPECS_MAX + 2)]

    for spec in [*specs, specs[0]]:
        driver.do(driver.frame(1, spec=spec))

    records = [r.decode_record(value) for value in driver.rows.of(r.READY).values()]
    assert [record.spec for record in records] == [*specs, specs[0]]
