"""Dispatch: who gets what, in which order, and how much of it."""

import random

import pytest

from tests.engine.harness import Driver, Held
from tq.engine import commands as c, dispatch
from tq.engine.dispatch import BATCH_TASKS_MAX, DELIVERY_TASKS_MAX
from tq.engine.flows import REFILL_ROWS


def drain(driver: Driver, worker: bytes) -> list[Held]:
    got: list[Held] = []
    while held := driver.take(worker):
        got += held
        driver.complete(worker, *held)
    return got


def suspect(driver: Driver, *, name: str = "t", priority: int = 128) -> bytes:
    """Make a task whose worker died while it ran."""
    (task_id,) = driver.enqueue(name=name, priority=priority)
    worker = driver.worker("victim", tasks=(name,))
    (held,) = driver.take(worker)
    driver.start(worker, held)
    driver.die(worker)
    return task_id


# ------------------------------------------------------------------------------------------------ order


def test_all_levels_of_priority_are_handed_out_from_the_top_and_each_in_order() -> None:
    driver = Driver(checked=False)
    levels = [level for level in range(256) for _ in range(2)]
    random.Random(7).shuffle(levels)
    enqueued = [(level, driver.enqueue(priority=level)[0]) for level in levels]

    worker = driver.worker(window=50)
    got = drain(driver, worker)

    expected = [task_id for _, task_id in sorted(enqueued, key=lambda each: -each[0])]
    assert [held.id for held in got] == expected


def test_equal_tasks_of_several_names_and_queues_come_oldest_first() -> None:
    driver = Driver()
    ids = [
        driver.enqueue(queue=queue, name=name)[0]
        for _ in range(3)
        for queue, name in (("a", "t"), ("b", "u"), ("a", "u"), ("b", "t"))
    ]

    worker = driver.worker(queues=("b", "a"), tasks=("t", "u"), window=5)

    assert [held.id for held in drain(driver, worker)] == ids


def test_an_urgent_task_overtakes_what_waits_but_not_what_was_handed_out() -> None:
    driver = Driver()
    ids = driver.enqueue(4, priority=1)
    worker = driver.worker(window=2)
    first = driver.take(worker)

    (urgent,) = driver.enqueue(priority=2)
    driver.complete(worker, *first)

    assert [held.id for held in first] == ids[:2]
    assert [held.id for held in driver.take(worker)] == [urgent, ids[2]]


def test_tasks_that_came_back_while_their_queue_was_paused_are_first_again_in_their_order() -> None:
    driver = Driver()
    ids = [driver.enqueue(name=name)[0] for name in ("t", "t", "u", "t")]
    worker = driver.worker(tasks=("t", "u"), window=3)
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.do(c.PauseQueue("q", paused=True))
    driver.release(worker, held[0], held[2])

    driver.do(c.PauseQueue("q", paused=False))
    driver.do(c.SetWindow(worker, 3, 1 << 30))

    assert [each.id for each in driver.take(worker)] == [ids[0], ids[2]]


def test_weights_share_out_what_is_of_one_priority() -> None:
    driver = Driver(checked=False)
    driver.enqueue(100, queue="a")
    driver.enqueue(100, queue="b")

    worker = driver.worker(queues={"a": 4, "b": 1}, window=50)

    queues = [held.record.spec.queue for held in driver.take(worker)]
    assert (queues.count("a"), queues.count("b")) == (40, 10)
    assert queues[:10].count("b") == 2


def test_weights_never_invert_priorities() -> None:
    driver = Driver()
    driver.enqueue(5, queue="a", priority=1)
    driver.enqueue(5, queue="b", priority=2)

    worker = driver.worker(queues={"a": 100, "b": 1}, window=20)

    assert [held.record.spec.queue for held in driver.take(worker)] == ["b"] * 5 + ["a"] * 5


def test_order_within_a_weighted_queue_is_kept() -> None:
    driver = Driver()
    ids = [driver.enqueue(queue="a", name=name)[0] for name in ("t", "u", "t", "t", "u")]
    driver.enqueue(5, queue="b")

    worker = driver.worker(queues={"a": 2, "b": 1}, tasks=("t", "u"), window=3)

    assert [held.id for held in drain(driver, worker) if held.record.spec.queue == "a"] == ids


def test_a_queue_saves_up_nothing_while_it_is_idle() -> None:
    driver = Driver(checked=False)
    driver.enqueue(queue="b")
    worker = driver.worker(queues={"a": 1, "b": 1}, window=1)
    drain(driver, worker)
    driver.enqueue(40, queue="a")
    for _ in range(20):
        driver.complete(worker, *driver.take(worker))

    driver.enqueue(20, queue="b")
    queues = [held.record.spec.queue for held in drain(driver, worker)]

    assert abs(queues[:20].count("a") - queues[:20].count("b")) <= 2


# ------------------------------------------------------------------------------------------------ who


def test_a_name_that_nobody_serves_waits_and_blocks_nobody() -> None:
    driver = Driver()
    unknown = driver.enqueue(3, name="unknown", priority=255)
    known = driver.enqueue(3)
    worker = driver.worker()

    assert [held.id for held in drain(driver, worker)] == known
    assert driver.queue().names_unserved == ["unknown"]
    assert driver.view(unknown[0]).attempts == 0

    late = driver.worker("late", tasks=("unknown", "t"))
    assert [held.id for held in driver.take(late)] == unknown
    assert driver.queue().names_unserved == []


def test_a_name_of_which_nothing_is_left_is_not_shown_as_unserved() -> None:
    driver = Driver()
    ids = driver.enqueue(2, name="unknown")
    driver.do(c.Cancel(ids))
    driver.restart()

    assert driver.queue().names_unserved == []


def test_a_queue_that_a_worker_does_not_serve_is_not_its_business() -> None:
    driver = Driver()
    driver.enqueue(queue="other")

    worker = driver.worker()

    assert driver.take(worker) == []


def test_a_worker_can_change_its_queues() -> None:
    driver = Driver()
    driver.enqueue(queue="a")
    (task_id,) = driver.enqueue(queue="b")
    worker = driver.worker(queues=("c",))
    driver.do(c.PauseQueue("c", paused=False))

    driver.do(c.Subscribe(worker, [("b", 1)], weighted=False))
    driver.dispatch()

    assert [held.id for held in driver.take(worker)] == [task_id]
    assert (driver.queue("a").workers, driver.queue("b").workers) == (0, 1)


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed() -> None:
    driver = Driver()
    driver.worker()
    driver.do(c.PauseQueue("q", paused=True))
    ids = driver.enqueue(2)
    worker = driver.worker()
    assert driver.take(worker) == []
    assert driver.queue().paused

    driver.restart()
    worker = driver.worker()
    assert driver.take(worker) == []

    driver.do(c.PauseQueue("q", paused=False))
    assert [held.id for held in driver.take(worker)] == ids


def test_a_disconnected_worker_gets_nothing() -> None:
    driver = Driver()
    worker = driver.worker()
    driver.do(c.Disconnect(worker))

    driver.enqueue()

    assert driver.take(worker) == []
    assert driver.queue().workers == 0


# ------------------------------------------------------------------------------------------------ how much


def test_a_worker_holds_no_more_tasks_than_its_window() -> None:
    driver = Driver()
    driver.enqueue(10)
    worker = driver.worker(window=3)
    held = driver.take(worker)

    driver.complete(worker, held[0])
    driver.release(worker, held[1])

    assert len(held) == 3
    assert len(driver.take(worker)) == 2


def test_a_worker_holds_one_task_beyond_its_window_of_bytes_at_most() -> None:
    driver = Driver()
    driver.enqueue(10, payload=bytes(1_000))
    worker = driver.worker(window=10, window_bytes=2_500)

    held = driver.take(worker)
    driver.complete(worker, held[0])

    assert len(held) == 3
    assert len(driver.take(worker)) == 1


def test_a_window_that_shrinks_takes_nothing_back() -> None:
    driver = Driver()
    driver.enqueue(5)
    worker = driver.worker(window=4)
    held = driver.take(worker)

    driver.do(c.SetWindow(worker, 2, 1 << 30))
    driver.complete(worker, *held[:2])
    assert driver.take(worker) == []

    driver.complete(worker, held[2])
    assert len(driver.take(worker)) == 1


@pytest.mark.parametrize(("tasks", "workers"), [(10, 2), (9, 4), (3, 4), (1_000, 4)])
def test_what_is_ready_is_shared_out_evenly(tasks: int, workers: int) -> None:
    driver = Driver(checked=False)
    sessions = [driver.worker(f"w{number}", window=1_000) for number in range(workers)]

    driver.enqueue(tasks)

    counts = [len(driver.take(session)) for session in sessions]
    assert sum(counts) == tasks
    assert max(counts) <= -(-tasks // workers)


def test_who_holds_less_is_served_first() -> None:
    driver = Driver()
    driver.enqueue(4)
    busy = driver.worker("busy")
    idle = driver.worker("idle")

    driver.enqueue(1)

    assert (len(driver.take(busy)), len(driver.take(idle))) == (4, 1)


def test_a_batch_hands_out_so_much_and_says_that_there_is_more() -> None:
    driver = Driver(checked=False)
    driver.enqueue(BATCH_TASKS_MAX + 100)
    driver.worker(window=0)
    session = b"w".ljust(16, b"_")
    driver.do(c.SetWindow(session, 10_000, 1 << 30), dispatch=False)

    changes = driver.engine.changes()
    assert driver.engine.dispatch(changes) is True
    assert sum(len(delivery.records) for delivery in changes.deliveries) == BATCH_TASKS_MAX
    assert max(len(delivery.records) for delivery in changes.deliveries) == DELIVERY_TASKS_MAX
    driver.finish(changes)

    assert len(driver.take(session)) == BATCH_TASKS_MAX + 100


def test_a_delivery_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DELIVERY_BYTES_MAX", 10_000)
    driver = Driver()
    driver.enqueue(10, payload=bytes(4_000))

    driver.worker(window=10)

    sizes = [sum(map(len, delivery.records)) for delivery in driver.last.deliveries]
    assert len(sizes) == 4
    assert max(sizes) < 14_200


def test_a_hand_out_reads_a_page_of_the_line_and_the_next_ones_nothing() -> None:
    driver = Driver(checked=False)
    driver.enqueue(20_000, dispatch=False)
    driver.rows.forget_counts()

    worker = driver.worker(window=10)
    for _ in range(20):
        driver.complete(worker, *driver.take(worker))

    assert driver.rows.rows_read == REFILL_ROWS


# ------------------------------------------------------------------------------------------------ suspects


def test_a_suspect_is_handed_out_alone_to_a_worker_that_holds_nothing() -> None:
    driver = Driver()
    task_id = suspect(driver)
    driver.enqueue(5)

    worker = driver.worker()
    (held,) = driver.take(worker)
    assert (held.id, held.alone) == (task_id, True)

    driver.complete(worker, held)
    assert [each.alone for each in driver.take(worker)] == [False] * 5


def test_a_busy_worker_is_emptied_for_a_suspect_and_then_goes_on() -> None:
    driver = Driver()
    ids = driver.enqueue(8)
    worker = driver.worker(window=2)
    held = driver.take(worker)
    driver.do(c.PauseQueue("q", paused=True))
    driver.do(c.PauseQueue("q", paused=False))
    victim = driver.worker("victim", window=1)
    (lost,) = driver.take(victim)
    driver.start(victim, lost)
    driver.die(victim)

    driver.complete(worker, held[0])
    assert driver.take(worker) == []
    driver.complete(worker, held[1])
    (alone,) = driver.take(worker)
    assert (alone.id, alone.alone) == (lost.id, True)
    driver.complete(worker, alone)

    assert [each.id for each in drain(driver, worker)] == ids[3:]


def test_while_one_worker_is_emptied_the_others_go_on() -> None:
    driver = Driver()
    driver.enqueue(20)
    workers = [driver.worker(name, window=2) for name in ("w1", "w2")]
    held = {worker: driver.take(worker) for worker in workers}
    victim = driver.worker("victim", window=1)
    (lost,) = driver.take(victim)
    driver.start(victim, lost)
    driver.die(victim)

    for worker in workers:
        driver.complete(worker, held[worker][0])

    assert sorted(len(driver.take(worker)) for worker in workers) == [0, 1]


def test_a_suspect_waits_for_what_is_more_urgent() -> None:
    driver = Driver()
    task_id = suspect(driver, priority=5)
    urgent = driver.enqueue(3, priority=6)

    worker = driver.worker(window=1)

    got = drain(driver, worker)
    assert [held.id for held in got] == [*urgent, task_id]
    assert [held.alone for held in got] == [False, False, False, True]


def test_suspects_are_handed_out_by_priority_then_age() -> None:
    driver = Driver()
    expected = {level: suspect(driver, priority=level, name=f"t{level}") for level in (5, 7, 6)}

    worker = driver.worker(tasks=("t5", "t6", "t7"))

    got = drain(driver, worker)
    assert [held.id for held in got] == [expected[7], expected[6], expected[5]]
    assert all(held.alone for held in got)


def test_suspects_found_in_the_store_are_handed_out_at_once() -> None:
    driver = Driver()
    task_id = suspect(driver)
    driver.restart()

    worker = driver.worker()

    assert [(held.id, held.alone) for held in driver.take(worker)] == [(task_id, True)]


def test_a_suspect_that_nobody_has_a_handler_for_empties_nobody() -> None:
    driver = Driver()
    suspect(driver, name="rare")
    ids = driver.enqueue(5)

    worker = driver.worker(window=2)

    assert [held.id for held in drain(driver, worker)] == ids


def test_a_cancelled_suspect_empties_nobody() -> None:
    driver = Driver()
    task_id = suspect(driver)
    (busy,) = driver.enqueue(name="u", priority=255)
    worker = driver.worker(tasks=("t", "u"), window=2)
    assert [held.id for held in driver.take(worker)] == [busy]

    driver.do(c.Cancel([task_id]))
    ids = driver.enqueue(1)

    assert [held.id for held in driver.take(worker)] == ids


def test_a_worker_reserved_for_a_suspect_that_another_takes_goes_on_at_once() -> None:
    driver = Driver()
    driver.enqueue(1)
    reserved = driver.worker("reserved", window=1)
    driver.take(reserved)
    lost, waiting = driver.enqueue(2)
    victim = driver.worker("victim", window=1)
    driver.start(victim, *driver.take(victim))
    driver.die(victim)
    driver.do(c.SetWindow(reserved, 2, 1 << 30))
    assert driver.take(reserved) == []

    free = driver.worker("free", tasks=("t", "x"), window=1)

    assert [(held.id, held.alone) for held in driver.take(free)] == [(lost, True)]
    assert [held.id for held in driver.take(reserved)] == [waiting]


@pytest.mark.parametrize("crowd", ["unserved", "paused", "suspects", "taken"])
def test_what_cannot_be_handed_out_is_no_reason_to_give_one_worker_all(crowd: str) -> None:
    driver = Driver()
    match crowd:
        case "unserved":
            driver.enqueue(50, name="nobody's")
        case "paused":
            driver.enqueue(50, queue="other")
            driver.do(c.PauseQueue("other", paused=True))
        case "suspects":
            driver.enqueue(50)
            worker = driver.worker("lost", window=50)
            driver.start(worker, *driver.take(worker))
            driver.die(worker)
        case _:
            driver.enqueue(50)
            driver.take(driver.worker("full", window=50))
    driver.enqueue(4, priority=255)
    workers = [driver.worker(name, queues=("q", "other"), window=0) for name in ("w1", "w2")]
    for worker in workers:
        driver.do(c.SetWindow(worker, 10, 1 << 30), dispatch=False)

    driver.dispatch()

    assert [len(driver.take(worker)) for worker in workers] == [2, 2]


def test_few_tasks_are_spread_over_all_workers_after_a_restart_too() -> None:
    driver = Driver()
    driver.enqueue(4)
    driver.enqueue(50, name="nobody's")
    driver.restart()
    workers = [driver.worker(name, window=0) for name in ("w1", "w2")]
    for worker in workers:
        driver.do(c.SetWindow(worker, 10, 1 << 30), dispatch=False)

    driver.dispatch()

    assert [len(driver.take(worker)) for worker in workers] == [2, 2]
