"""The invariants: each is broken by rows, or by an engine, that contradict it, and named."""

from collections.abc import Callable

import pytest

from tests.engine.harness import Driver
from tq.engine import commands as c, rows as r
from tq.engine.flows import Flow
from tq.engine.queues import Queue
from tq.testing.invariants import InvariantBroken, check_invariants


def lived() -> Driver:
    """Return a driver with a task in every place."""
    driver = Driver()
    driver.enqueue(6)
    worker = driver.worker(window=4)
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.complete(worker, held[0])
    driver.fail(worker, held[1], reject=True)
    driver.fail(worker, held[2], retry_after_ms=1_000)
    return driver


def first(driver: Driver, letter: bytes) -> bytes:
    return next(iter(driver.rows.of(letter)))


def drop(letter: bytes) -> Callable[[Driver], None]:
    return lambda driver: driver.rows.apply({first(driver, letter): None})


def change_queue(**fields: object) -> Callable[[Driver], None]:
    def spoil(driver: Driver) -> None:
        key = first(driver, r.QUEUE)
        row = r.decode_queue(driver.rows.of(r.QUEUE)[key])
        for name, value in fields.items():
            setattr(row, name, value)
        driver.rows.apply({key: r.encode_row(row)})

    return spoil


def id_of_a_waiting_task_gone(driver: Driver) -> None:
    driver.rows.apply({list(driver.rows.of(r.TASK))[-1]: None})


def id_points_nowhere(driver: Driver) -> None:
    driver.rows.apply({r.TASK + b"x" * 16: r.READY + bytes(r.FLOW_BYTES) + r.u64(99)})


def id_of_another(driver: Driver) -> None:
    driver.rows.apply({r.TASK + b"x" * 16: first(driver, r.READY)})


def floor_too_far(driver: Driver) -> None:
    driver.rows.apply({first(driver, r.FLOW): r.u64(1_000)})


def under_two_leases(driver: Driver) -> None:
    key, value = next(iter(driver.rows.of(r.LEASE).items()))
    driver.rows.apply({key[:-1] + b"\x7f": value})


def of_a_worker_unknown(driver: Driver) -> None:
    driver.rows.apply({first(driver, r.WORKER): None})


def seq_beyond_the_reserved(driver: Driver) -> None:
    driver.rows.apply({r.META + b"seq": r.u64(1)})


def before_the_floor_of_time(driver: Driver) -> None:
    driver.rows.apply({r.META + b"due": r.u64(driver.now + 5_000)})


def seq_twice(driver: Driver) -> None:
    key, value = next(iter(driver.rows.of(r.EXPIRY).items()))
    driver.rows.apply({r.EXPIRY + r.u64(driver.now + 9_000) + key[-8:]: value})


def of_an_unknown_kind(driver: Driver) -> None:
    driver.rows.apply({b"Y": b""})


def token_of_an_epoch_to_come(driver: Driver) -> None:
    driver.rows.apply({r.META + b"epoch": r.u64(0)})


def expires_unseen(driver: Driver) -> None:
    driver.rows.apply(dict.fromkeys(driver.rows.of(r.EXPIRY)))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (id_of_a_waiting_task_gone, "the id row of its task says None"),
        (drop(r.READY), "where there is nothing"),
        (drop(r.DUE), "where there is nothing"),
        (drop(r.DEAD), "where there is nothing"),
        (drop(r.NAMES), "its task name has no number"),
        (drop(r.FLOW), "its flow has no row"),
        (change_queue(pending=7), r"counts \(7, 1, 1\) pending, scheduled, dead; there are \(3, 1, 1\)"),
        (change_queue(scheduled=2), "counts"),
        (change_queue(dead=0), "counts"),
        (change_queue(enqueued_total=3), "3 were enqueued"),
        (change_queue(generation=2), "of a purged generation, and no purge will remove it"),
        (id_points_nowhere, "where there is nothing"),
        (id_of_another, "points to R"),
        (floor_too_far, "below the floor 1000 of its flow"),
        (under_two_leases, "under 2 leases"),
        (of_a_worker_unknown, "its worker .* is not known"),
        (seq_beyond_the_reserved, "a seq above what is reserved"),
        (before_the_floor_of_time, "before the floor .* of the timeline"),
        (seq_twice, "seqs in use twice"),
        (of_an_unknown_kind, "rows of unknown kinds"),
        (token_of_an_epoch_to_come, "tokens of an epoch that has not begun"),
        (expires_unseen, "looked at last at 0"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_rows_that_contradict_each_other_are_named(spoil: Callable[[Driver], None], named: str) -> None:
    driver = lived()
    check_invariants(driver.rows)

    spoil(driver)

    with pytest.raises(InvariantBroken, match=named):
        check_invariants(driver.rows)


def forget_running(driver: Driver) -> None:
    driver.engine._leases.running.clear()


def forget_a_head(driver: Driver) -> None:
    flow(driver)._heads.pop()


def keep_a_head_twice(driver: Driver) -> None:
    flow(driver)._heads.append(flow(driver)._heads[0])


def count_a_worker_wrong(driver: Driver) -> None:
    driver.engine._workers.all()[0].held_tasks += 1


def count_bytes_wrong(driver: Driver) -> None:
    driver.engine._queues._budget.used += 1


def change_a_counter_unwritten(driver: Driver) -> None:
    queue(driver).row.completed_total += 1


def know_another_floor(driver: Driver) -> None:
    flow(driver)._floor_written = 0


def forget_a_flow(driver: Driver) -> None:
    queue(driver).flows.clear()


def queue(driver: Driver) -> Queue:
    return next(iter(driver.engine._queues.all()))


def flow(driver: Driver) -> Flow:
    return next(iter(queue(driver).flows.values()))


@pytest.mark.parametrize(
    "spoil",
    [
        forget_running,
        forget_a_head,
        keep_a_head_twice,
        count_a_worker_wrong,
        count_bytes_wrong,
        change_a_counter_unwritten,
        know_another_floor,
        forget_a_flow,
    ],
)
def test_an_engine_that_contradicts_its_rows_is_found_out(spoil: Callable[[Driver], None]) -> None:
    driver = lived()
    check_invariants(driver.rows, driver.engine)

    spoil(driver)

    check_invariants(driver.rows)
    with pytest.raises(InvariantBroken):
        check_invariants(driver.rows, driver.engine)


def test_an_empty_store_is_in_order() -> None:
    check_invariants(Driver().rows)
