"""Pages: each task is shown once, in order, and every page fits a frame."""

from itertools import pairwise

import msgspec
import pytest

from tests.engine.harness import Driver
from tq.core.errors import InvalidArgument
from tq.core.limits import ANSWER_BYTES_MAX, FRAME_BYTES_MAX
from tq.core.outcome import FailedAttempt, TaskFailure
from tq.engine import commands as c, flows, rows as r
from tq.engine.pages import Room
from tq.protocol.messages import Tasks

STATES = ["ready", "running", "scheduled", "dead"]


def pages(driver: Driver, state: str, queue: str | None, limit: int) -> list[bytes]:
    """Return all that the pages show."""
    ids: list[bytes] = []
    cursor: bytes | None = None
    for _ in range(1_000):
        views, cursor = driver.do(c.ListTasks(state, queue, limit, cursor))
        assert len(views) <= limit
        assert {view.state.value for view in views} <= {state}
        ids += [view.id for view in views]
        if cursor is None:
            return ids
    raise AssertionError("pages without an end")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_ready_tasks_are_listed_queue_by_queue_the_most_urgent_first(limit: int) -> None:
    driver = Driver()
    entries = [
        (queue, priority, driver.enqueue(queue=queue, priority=priority, name=name)[0])
        for queue in ("a", "b")
        for priority in (1, 200, 1)
        for name in ("t", "u", "t")
    ]
    expected = [each[2] for each in sorted(entries, key=lambda each: (each[0], -each[1]))]

    assert pages(driver, "ready", None, limit) == expected
    assert pages(driver, "ready", "b", limit) == expected[9:]


def test_ready_tasks_are_listed_without_those_that_run() -> None:
    driver = Driver()
    ids = driver.enqueue(6)
    worker = driver.worker(window=3)
    driver.take(worker)

    assert pages(driver, "ready", "q", 2) == ids[3:]
    assert pages(driver, "running", "q", 2) == ids[:3]


def test_listing_starts_where_the_line_does_and_walks_over_nothing_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flows, "FLOOR_STEP", 2)
    monkeypatch.setattr(flows, "FLOOR_ROWS", 2)
    driver = Driver()
    ids = driver.enqueue(9)
    worker = driver.worker(window=1)
    for _ in range(5):
        driver.complete(worker, *driver.take(worker))
    (floor,) = driver.rows.of(r.FLOW).values()
    driver.checked = False
    driver.rows.forget_counts()

    assert pages(driver, "ready", "q", 100) == ids[6:]

    assert int.from_bytes(floor, "big") > 2
    assert min(start for start in driver.rows.starts if start[:1] == r.READY)[-8:] >= floor


def test_a_page_over_many_lines_reads_few_rows_of_each() -> None:
    driver = Driver(checked=False)
    ids = [driver.enqueue(name=f"t{number}", dispatch=False)[0] for _ in range(20) for number in range(200)]
    driver.rows.forget_counts()

    views, cursor = driver.do(c.ListTasks("ready", "q", 10, None))
    first = driver.rows.rows_read
    driver.rows.forget_counts()
    more, _ = driver.do(c.ListTasks("ready", "q", 300, cursor))

    assert [view.id for view in (*views, *more)] == ids[:310]
    # Those that begin behind the page are not read, each of the others a few rows ahead.
    assert first <= 3 * 11
    assert driver.rows.rows_read <= 200 + 4 * 300


def test_what_a_page_reads_of_other_lines_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.engine.pages._PAGE_BYTES_MAX", 5_000)
    driver = Driver(checked=False)
    ids = [driver.enqueue(name=f"t{number}", payload=bytes(1_000))[0] for _ in range(3) for number in range(10)]
    cursor: bytes | None = None
    shown: list[bytes] = []
    while True:
        driver.rows.forget_counts()
        views, cursor = driver.do(c.ListTasks("ready", "q", 100, cursor))
        shown += [view.id for view in views]
        assert views
        assert driver.rows.rows_read <= 10 + 6
        if cursor is None:
            break

    assert shown == ids


def test_running_tasks_are_listed_in_the_order_in_which_they_were_handed_out() -> None:
    driver = Driver()
    ids = [*driver.enqueue(2, queue="a"), *driver.enqueue(2, queue="b")]
    driver.worker(queues=("a", "b"), window=3)
    driver.worker("w2", queues=("b",), window=3)

    for limit in (1, 3, 100):
        assert pages(driver, "running", None, limit) == ids
        assert pages(driver, "running", "b", limit) == ids[2:]


def test_scheduled_tasks_are_listed_by_their_time() -> None:
    driver = Driver()
    ids = [*driver.enqueue(3, queue="a"), *driver.enqueue(2, queue="b")]
    worker = driver.worker(queues=("a", "b"))
    for held, wait in zip(driver.take(worker), (3_000, 1_000, 2_000, 5_000, 4_000), strict=True):
        driver.fail(worker, held, retry_after_ms=wait)

    for limit in (1, 2, 100):
        assert pages(driver, "scheduled", None, limit) == [ids[1], ids[2], ids[0], ids[4], ids[3]]
        assert pages(driver, "scheduled", "b", limit) == [ids[4], ids[3]]


def test_a_page_of_few_among_many_stops_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.engine.pages._ROWS_LOOKED_AT_MAX", 4)
    driver = Driver()
    driver.enqueue(9, queue="a")
    (rare,) = driver.enqueue(1, queue="b")
    worker = driver.worker(queues=("a", "b"))
    driver.fail(worker, *driver.take(worker), retry_after_ms=1_000)

    views, cursor = driver.do(c.ListTasks("scheduled", "b", 2, None))
    assert (views, cursor is None) == ([], False)
    assert pages(driver, "scheduled", "b", 2) == [rare]


def test_dead_letters_are_listed_in_the_order_of_their_death() -> None:
    driver = Driver()
    ids = [*driver.enqueue(2, queue="a"), *driver.enqueue(2, queue="b")]
    worker = driver.worker(queues=("a", "b"))
    for held in reversed(driver.take(worker)):
        driver.fail(worker, held, reject=True)

    for limit in (1, 3, 100):
        assert pages(driver, "dead", None, limit) == [ids[1], ids[0], ids[3], ids[2]]
        assert pages(driver, "dead", "b", limit) == [ids[3], ids[2]]


@pytest.mark.parametrize("state", ["ready", "running", "scheduled", "dead"])
def test_an_empty_list_is_one_empty_page(state: str) -> None:
    driver = Driver()
    driver.worker()

    assert driver.do(c.ListTasks(state, None, 10, None)) == ([], None)
    assert driver.do(c.ListTasks(state, "q", 10, None)) == ([], None)


@pytest.mark.parametrize(
    ("state", "limit", "cursor"),
    [
        ("completed", 10, None),
        ("nonsense", 10, None),
        ("ready", 0, None),
        ("ready", 1_001, None),
        ("ready", 10, b"x"),
        ("running", 10, b"x"),
        ("scheduled", 10, b"x"),
        ("dead", 10, b"x"),
    ],
)
def test_a_list_that_cannot_be_given_is_refused(state: str, limit: int, cursor: bytes | None) -> None:
    driver = Driver()
    driver.enqueue()

    driver.refused(c.ListTasks(state, None, limit, cursor), InvalidArgument)


# ------------------------------------------------------------------------------------------------ pages by bytes

# The longest that may be: names of 255 characters of four bytes each, failures of 16,384.
QUEUE = "q" * 128
LONG_NAME = "\U0001f40c" * 255
LONG_FAILURE = TaskFailure("E", "no", "\U0001f40c" * 16_384)


def in_state(driver: Driver, state: str, ids: list[bytes], failure: TaskFailure) -> None:
    """Bring what is ready into *state*."""
    if state == "ready":
        return
    worker = driver.worker("\U0001f40c" * 4, queues=(QUEUE,), tasks=("t", LONG_NAME), window=len(ids))
    while held := driver.take(worker):
        if state == "running":
            break
        for each in held:
            driver.settle(c.Settle(worker, [], [FailedAttempt(*each.place, failure, 1_000, state == "dead")]))


@pytest.mark.parametrize("state", STATES)
def test_a_page_fits_a_frame_however_long_the_names(state: str) -> None:
    driver = Driver(checked=False)
    ids = [task_id for _ in range(5) for task_id in driver.enqueue(200, queue=QUEUE, name=LONG_NAME)]
    in_state(driver, state, ids, TaskFailure("E", "no"))

    shown: list[bytes] = []
    cursor, count = None, 0
    while cursor is not None or not count:
        views, cursor = driver.do(c.ListTasks(state, QUEUE, 1_000, cursor), dispatch=False)
        assert len(msgspec.msgpack.encode(Tasks(list(views), cursor))) <= ANSWER_BYTES_MAX
        shown += [view.id for view in views]
        count += 1

    assert shown == ids
    assert 2 <= count <= 3


@pytest.mark.parametrize("state", ["scheduled", "dead"])
def test_a_page_fits_a_frame_however_long_the_failures(state: str) -> None:
    driver = Driver(checked=False)
    ids = driver.enqueue(40, queue=QUEUE)
    in_state(driver, state, ids, LONG_FAILURE)

    assert pages(driver, state, QUEUE, 1_000) == ids
    views, _ = driver.do(c.ListTasks(state, None, 1_000, None), dispatch=False)
    assert 0 < len(views) < 40
    assert len(msgspec.msgpack.encode(Tasks(list(views), None))) < FRAME_BYTES_MAX


def test_a_page_of_long_payloads_reads_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.engine.pages._PAGE_BYTES_MAX", 400_000)
    driver = Driver(checked=False)
    ids = [task_id for _ in range(30) for task_id in driver.enqueue(1, payload=b"p" * 100_000)]
    driver.rows.forget_counts()

    views, cursor = driver.do(c.ListTasks("ready", "q", 1_000, None))

    # What was read ahead and is not shown counts too.
    assert ([view.id for view in views], cursor is None) == (ids[:3], False)
    assert driver.rows.rows_read <= 8
    assert pages(driver, "ready", "q", 1_000) == ids


def test_running_tasks_of_a_rare_queue_are_found_a_bounded_number_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.engine.pages._ROWS_LOOKED_AT_MAX", 4)
    driver = Driver()
    driver.enqueue(9, queue="a", priority=200)
    (rare,) = driver.enqueue(1, queue="b")
    driver.worker(queues=("a", "b"), window=10)

    views, cursor = driver.do(c.ListTasks("running", "b", 2, None))

    assert (views, cursor is None) == ([], False)
    assert pages(driver, "running", "b", 2) == [rare]


def test_running_tasks_are_shown_in_order_after_a_restart_and_more_hand_outs() -> None:
    driver = Driver()
    ids = driver.enqueue(6)
    driver.worker(window=4)
    driver.restart()
    driver.worker("other", window=2)

    assert pages(driver, "running", None, 1) == ids
    tokens = [token for token, _, _ in driver.engine._leases.handed_out_after(0, -1)]
    assert all(one <= two for one, two in pairwise(tokens))


def test_the_first_of_an_answer_fits_and_what_does_not_takes_no_room() -> None:
    room = Room()

    assert room.take(ANSWER_BYTES_MAX - 1)
    assert not room.take(2)
    assert room.take(1)
    assert not room.take(1)
    assert Room().take(ANSWER_BYTES_MAX + 1)
