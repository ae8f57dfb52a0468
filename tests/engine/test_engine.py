"""The engine as a whole: batches, time, and refusals that leave no trace."""

import pytest

from tests.engine.harness import START, Driver, Rows, a_spec, dump
from tq.core.lifecycle import TaskState
from tq.core.retry import RetryPolicy
from tq.engine import commands as c, rows as r
from tq.engine.engine import Engine, EngineSettings


def test_many_commands_are_one_batch() -> None:
    driver = Driver()
    worker = driver.worker(window=1)
    changes = driver.engine.changes()

    frames = [driver.frame(2) for _ in range(3)]
    for frame in frames:
        assert driver.engine.apply(frame, driver.now, changes) == []
    views = driver.engine.apply(c.Get([frames[0].tasks[0].id]), driver.now, changes)
    assert [view.state for view in views if view] == [TaskState.READY]
    assert driver.rows.of(r.READY) == {}
    driver.finish(changes)

    assert driver.queue().running == 1
    assert len(driver.take(worker)) == 1


def test_a_task_enqueued_and_handed_out_in_one_batch_is_settled_in_the_next() -> None:
    driver = Driver()
    worker = driver.worker()

    (task_id,) = driver.enqueue()

    assert driver.complete(worker, *driver.take(worker)) == []
    assert driver.state(task_id) == "completed"


def test_an_idle_engine_sleeps_until_the_next_sweep() -> None:
    driver = Driver()
    driver.tick()

    assert driver.engine.next_tick(driver.now) > driver.now + 5_000
    driver.tick()
    assert driver.last.writes == {}


def test_the_next_tick_is_when_something_is_due() -> None:
    driver = Driver()
    driver.enqueue(2, timeout_ms=4_000)
    worker = driver.worker()
    one, two = driver.take(worker)
    driver.tick()
    assert driver.engine.next_tick(driver.now) == driver.now + driver.settings.lease_ms

    driver.fail(worker, one, retry_after_ms=2_000)
    assert driver.engine.next_tick(driver.now) == driver.now + 2_000
    driver.complete(worker, two)
    driver.do(c.PurgeQueue("q"))
    assert driver.engine.next_tick(driver.now) == driver.now


def test_a_tick_does_no_more_than_one_change_may_hold() -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=1 << 30), checked=False)
    payload = bytes(60_000)
    retried = [driver.enqueue(payload=payload)[0] for _ in range(10)]
    worker = driver.worker("retrying", window=10)
    driver.fail(worker, *driver.take(worker), retry_after_ms=driver.settings.lease_ms)
    driver.do(c.SetWindow(worker, 0, 0))
    workers = [driver.worker(f"w{number}", window=10) for number in range(6)]
    for _ in range(30):
        driver.enqueue(payload=payload)
    for each in workers:
        driver.start(each, *driver.take(each))
    driver.now += driver.settings.lease_ms
    sizes = []

    while driver.do(c.ListWorkers(), dispatch=False)[0] or driver.engine.next_tick(driver.now) <= driver.now:
        driver.do(c.Tick(), dispatch=False)
        sizes.append(sum(len(key) + len(value or b"") for key, value in driver.last.writes.items()))

    assert max(sizes) < 512 * 1024
    assert {driver.state(task_id) for task_id in retried} == {"ready"}
    assert driver.queue().lost_total == 30


def test_the_clock_of_a_restart_is_not_before_what_was_written() -> None:
    driver = Driver()
    driver.now += 5_000
    driver.enqueue()
    driver.now -= 5_000

    driver.restart()

    assert driver.now == START + 5_000


def test_a_batch_without_writes_stays_without() -> None:
    driver = Driver()
    driver.now += 5_000
    changes = driver.engine.changes()

    assert driver.engine.dispatch(changes) is False
    driver.engine.seal(driver.now, changes)

    assert changes.writes == {}
    assert not changes.promised


def test_one_history_gives_the_same_rows_and_the_same_answers_each_time() -> None:
    assert history() == history()


def history() -> tuple[dict[bytes, bytes], object]:
    driver = Driver(draw=lambda: 0.25)
    driver.enqueue(5, retry=RetryPolicy(backoff_ms=1_000))
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.complete(worker, held[0], result=b"r")
    driver.fail(worker, held[1])
    driver.start(worker, held[2])
    driver.die(worker)
    driver.do(c.PurgeQueue("q"))
    driver.tick(60_000)
    return dict(driver.rows.rows), dump(driver.engine)


def test_an_engine_over_rows_of_another_knows_what_it_knew() -> None:
    driver = Driver()
    driver.enqueue(3)
    worker = driver.worker(window=1)
    driver.take(worker)

    copy = Rows(driver.rows.rows)
    other = Driver(rows=copy)

    assert [view.ready for view in other.do(c.ListQueues(None))[0]] == [2]
    assert [view.held for view in other.do(c.ListWorkers())[0]] == [1]


def test_the_draw_is_the_only_chance() -> None:
    drawn: list[float] = []

    def draw() -> float:
        drawn.append(0.5)
        return 0.5

    driver = Driver(draw=draw)
    driver.enqueue(retry=RetryPolicy(backoff_ms=1_000))
    worker = driver.worker()
    driver.fail(worker, *driver.take(worker))

    assert drawn == [0.5]


@pytest.mark.parametrize("priority", [0, 255])
def test_the_life_of_a_task_costs_so_many_rows(priority: int) -> None:
    driver = Driver()
    worker = driver.worker()
    spec = a_spec(priority=priority, result_ttl_ms=0)
    driver.do(driver.frame(1, spec=spec), dispatch=False)
    driver.dispatch()
    driver.complete(worker, *driver.take(worker))
    driver.rows.forget_counts()

    frame = driver.frame(100, spec=spec)
    driver.checked = False
    driver.do(frame, dispatch=False)
    enqueued = len(driver.last.writes)
    driver.do(c.SetWindow(worker, 100, 1 << 30))
    handed_out = len(driver.last.writes)
    driver.complete(worker, *driver.take(worker))
    settled = len(driver.last.writes)

    # Two rows a task, the frame, the queue; one lease row; the same two deleted, the lease, the queue.
    assert (enqueued, handed_out, settled) == (202, 1, 202)
    assert (driver.rows.scans, driver.rows.gets) == (0, 101)


def test_the_settings_say_what_the_documentation_says() -> None:
    settings = EngineSettings()

    assert (settings.lease_ms, settings.payload_bytes_max, settings.frame_memory_ms) == (10_000, 262_144, 3_600_000)
    assert Engine(Rows(), settings, lambda: 0.0).next_tick(0) == 0
