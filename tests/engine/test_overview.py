"""Overview: pages of queues and workers that fit a frame, whatever is in them."""

from typing import Any

import pytest

from tests.engine.harness import SECRET, Driver, a_spec
from tq.core.errors import BatchTooLarge, InvalidArgument
from tq.core.limits import FRAME_BYTES_MAX
from tq.core.queue import QueueView
from tq.core.task import NewTask
from tq.core.worker import WorkerInfo, WorkerView
from tq.engine import commands as c
from tq.protocol.codec import encode_message
from tq.protocol.frames import HEADER_BYTES
from tq.protocol.messages import Queues, Workers


def crowd(driver: Driver, count: int) -> list[str]:
    """Make so many queues with the longest of names."""
    names = [f"{number:06}".ljust(128, "q") for number in range(count)]
    for start in range(0, count, 500):
        specs = [a_spec(queue=name) for name in names[start : start + 500]]
        driver.do(c.Enqueue(driver.new_id(), specs, []), dispatch=False)
    return names


def queue_pages(driver: Driver, limit: int) -> list[list[QueueView]]:
    pages, cursor = [], None
    while True:
        views, cursor = driver.do(c.ListQueues(None, limit, cursor), dispatch=False)
        pages.append(views)
        assert len(pages) < 100, "a cursor leads nowhere"
        assert len(encode_message(Queues(views, cursor), 1)) - HEADER_BYTES <= FRAME_BYTES_MAX
        if cursor is None:
            return pages


def worker_pages(driver: Driver, limit: int) -> list[list[WorkerView]]:
    pages, cursor = [], None
    while True:
        views, cursor = driver.do(c.ListWorkers(limit, cursor), dispatch=False)
        pages.append(views)
        assert len(pages) < 100, "a cursor leads nowhere"
        assert len(encode_message(Workers(views, cursor), 1)) - HEADER_BYTES <= FRAME_BYTES_MAX
        if cursor is None:
            return pages


def register(driver: Driver, number: int, info: WorkerInfo) -> bytes:
    session = number.to_bytes(16, "big")
    driver.do(c.Register(session, SECRET, info, []), dispatch=False)
    return session


@pytest.mark.parametrize("limit, pages", [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (5, [5]), (1_000, [5])])
def test_queues_are_told_once_each_in_the_order_in_which_they_came_to_be(limit: int, pages: list[int]) -> None:
    driver = Driver()
    for name in "edcba":
        driver.enqueue(queue=name)

    told = queue_pages(driver, limit)

    assert [len(page) for page in told] == pages
    assert [view.name for page in told for view in page] == list("edcba")


def test_more_queues_than_fit_a_frame_are_told_in_pages_that_do() -> None:
    driver = Driver(checked=False)
    names = crowd(driver, 6_000)

    told = queue_pages(driver, 1_000)

    assert [view.name for page in told for view in page] == names
    assert len(told) == 6


def test_a_queue_that_comes_while_pages_are_read_is_on_the_last() -> None:
    driver = Driver()
    driver.enqueue(queue="a")
    driver.enqueue(queue="b")
    _, cursor = driver.do(c.ListQueues(None, 1))

    driver.enqueue(queue="c")

    views, cursor = driver.do(c.ListQueues(None, 10, cursor))
    assert ([view.name for view in views], cursor) == (["b", "c"], None)


def test_who_knows_no_pages_gets_all_queues_or_is_told_that_they_do_not_fit() -> None:
    driver = Driver(checked=False)
    names = crowd(driver, 1_200)
    views, cursor = driver.do(c.ListQueues(None))
    assert ([view.name for view in views], cursor) == (names, None)

    crowd(driver, 6_000)

    driver.refused(c.ListQueues(None), BatchTooLarge)


def test_the_totals_are_the_sums_of_the_queues() -> None:
    driver = Driver()
    worker = driver.worker(queues=("a",), window=2)
    driver.enqueue(3, queue="a")
    driver.enqueue(2, queue="b")
    one, other = driver.take(worker)
    driver.complete(worker, one)
    driver.fail(worker, other, reject=True)

    views, _ = driver.do(c.ListQueues(None))
    totals = driver.do(c.GetTotals())

    assert totals == c.Totals(
        queues=2, ready=2, running=1, scheduled=0, dead=1, enqueued_total=5, completed_total=1, failed_total=1
    )
    assert totals.ready == sum(view.ready for view in views)


def test_of_the_names_that_nobody_serves_as_many_are_told_as_fit() -> None:
    driver = Driver(checked=False)
    for start in range(0, 4_000, 100):
        specs = [a_spec(name=f"{start + number:04}".ljust(255, "\N{SNOWMAN}")) for number in range(100)]
        tasks = [NewTask(driver.new_id(), number, b"") for number in range(100)]
        driver.do(c.Enqueue(driver.new_id(), specs, tasks), dispatch=False)

    ([view], _) = driver.do(c.ListQueues("q"), dispatch=False)

    assert view.names_unserved is not None
    assert 300 < len(view.names_unserved) < 4_000
    assert view.names_unserved[0].startswith("0000")
    assert len(encode_message(Queues([view]), 1)) < FRAME_BYTES_MAX


@pytest.mark.parametrize("limit, pages", [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (None, [3])])
def test_workers_are_told_once_each_with_what_they_hold_and_have_started(limit: int | None, pages: list[int]) -> None:
    driver = Driver()
    workers = [driver.worker(name, window=1) for name in "cab"]
    driver.enqueue(3)
    (held,) = driver.take(workers[1])
    driver.start(workers[1], held)

    told = worker_pages(driver, limit) if limit else [driver.do(c.ListWorkers())[0]]

    assert [len(page) for page in told] == pages
    assert [(view.info.name, view.held, view.started) for page in told for view in page] == [
        ("a", 1, 1),
        ("b", 1, 0),
        ("c", 1, 0),
    ]


def test_workers_that_know_very_many_tasks_are_told_in_pages_that_fit() -> None:
    driver = Driver(checked=False)
    tasks = [f"{number:04}".ljust(255, "\N{SNOWMAN}") for number in range(1_000)]
    long = "\N{SNOWMAN}" * 100_000
    sessions = [register(driver, number, WorkerInfo(long, long, 1, long, 1, tasks, long)) for number in range(1, 20)]
    driver.do(c.Beat(sessions[0], 1, long, [long] * 10_000), dispatch=False)

    told = worker_pages(driver, 1_000)

    assert [view.session for page in told for view in page] == sessions
    assert len(told) > 1
    assert all(300 < len(view.info.tasks) < 1_000 for page in told for view in page)
    driver.refused(c.ListWorkers(), BatchTooLarge)


def test_a_worker_that_leaves_while_pages_are_read_hides_no_other() -> None:
    driver = Driver()
    sessions = [driver.worker(name) for name in "abc"]
    views, cursor = driver.do(c.ListWorkers(1))

    driver.do(c.Leave(sessions[0]))

    rest, _ = driver.do(c.ListWorkers(10, cursor))
    assert [view.session for view in (*views, *rest)] == sessions


Listing = c.Command[tuple[list[Any], bytes | None]]


@pytest.mark.parametrize(
    "command",
    [
        c.ListQueues(None, 0),
        c.ListQueues(None, 1_001),
        c.ListQueues(None, 1, b"short"),
        c.ListWorkers(0),
        c.ListWorkers(1_001),
        c.ListWorkers(1, b"short"),
    ],
)
def test_a_wrong_limit_or_cursor_is_refused(command: Listing) -> None:
    Driver().refused(command, InvalidArgument)


@pytest.mark.parametrize("command", [c.ListQueues(None, 1, b"\xff" * 4), c.ListWorkers(1, b"\xff" * 16)])
def test_behind_the_last_there_is_nothing(command: Listing) -> None:
    driver = Driver()
    driver.worker()

    assert driver.do(command) == ([], None)
