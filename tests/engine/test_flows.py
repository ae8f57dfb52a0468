"""Flows: order kept over memory and store, floors that lose nothing, and reads that count."""

import sys

import pytest

from tests.engine.harness import Driver, a_spec
from tq.core.task import NewTask
from tq.engine import commands as c, flows, passage, rows as r
from tq.engine.engine import EngineSettings
from tq.engine.flows import HEADS_MAX, REFILL_ROWS
from tq.testing.invariants import check_invariants


def drain(driver: Driver, worker: bytes) -> list[bytes]:
    """Complete all there is; returns the ids in the order in which they came."""
    ids: list[bytes] = []
    while held := driver.take(worker):
        ids += [each.id for each in held]
        driver.complete(worker, *held)
    return ids


@pytest.mark.parametrize(
    "count", [HEADS_MAX - 1, HEADS_MAX, HEADS_MAX + 1, HEADS_MAX + REFILL_ROWS, HEADS_MAX + REFILL_ROWS + 1]
)
def test_order_is_kept_over_every_boundary_of_the_heads(count: int) -> None:
    driver = Driver(checked=False)
    ids = driver.enqueue(count)

    worker = driver.worker(window=100)

    assert drain(driver, worker) == ids
    assert driver.queue().ready == 0


@pytest.mark.parametrize("heads_bytes_max", [0, 1, 200, 2_000])
def test_order_is_kept_however_little_memory_the_heads_may_have(heads_bytes_max: int) -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=heads_bytes_max))
    ids = driver.enqueue(20) + driver.enqueue(20, priority=5)
    worker = driver.worker(window=7)

    assert drain(driver, worker) == ids


def test_all_heads_together_stay_within_their_budget() -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=10_000), checked=False)
    driver.worker(window=0)
    for priority in range(100):
        driver.enqueue(10, payload=bytes(1_000), priority=priority)

    budget = driver.engine._queues._budget

    assert 9_000 < budget.used < 12_000


def held_by(driver: Driver) -> tuple[int, int]:
    """Return how many heads there are, and how many bytes their objects take, each counted once."""
    tasks = [t for q in driver.engine._queues.all() for flow in q.flows.values() for t in flow._heads]
    objects: dict[int, object] = {}
    for task in tasks:
        spec = task.spec
        parts = (task, task.seq, task.id, task.record, task.enqueued_at, spec, spec.name, spec.queue, spec.codec)
        times = (spec.timeout_ms, spec.result_ttl_ms, spec.retry.backoff_ms, spec.retry.backoff_max_ms)
        for each in (*parts, *times, spec.retry, spec.retry.jitter):
            objects[id(each)] = each
    slots = sum(sys.getsizeof(flow._heads) for q in driver.engine._queues.all() for flow in q.flows.values())
    return len(tasks), slots + sum(map(sys.getsizeof, objects.values()))


@pytest.mark.parametrize("specs", ["one", "each its own"])
@pytest.mark.parametrize("read", [False, True], ids=["enqueued", "read"])
def test_heads_are_counted_with_all_that_they_take(*, read: bool, specs: str) -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=100_000), checked=False)
    if not read:
        driver.worker(window=0)
    for number in range(1_000):
        driver.enqueue(timeout_ms=100_000 + (0 if specs == "one" else number))
    if read:
        driver.restart()
        driver.worker(window=1)

    count, taken = held_by(driver)

    used = driver.engine._queues._budget.used
    # A deque takes its slots 64 at a time, and one head may pass the limit.
    assert taken <= used + 1_024
    assert 95_000 < used < 101_000
    assert count > 100
    check_invariants(driver.rows, driver.engine)


@pytest.mark.parametrize("read", [False, True], ids=["enqueued", "read"])
def test_heads_of_equal_specs_share_one(*, read: bool) -> None:
    driver = Driver(checked=False)
    if not read:
        driver.worker(window=0)
    for _ in range(100):
        driver.enqueue()
    if read:
        driver.restart()
        driver.worker(window=1)
    (flow,) = driver.engine._queues.named("q").flows.values()

    assert len(flow._heads) >= 99
    assert len({id(task.spec) for task in flow._heads}) == 1


def test_a_busy_flow_has_the_memory_that_idle_ones_use_up() -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=100_000), checked=False)
    idle = [f"idle{number}" for number in range(20)]
    driver.worker("idle", queues=tuple(idle), window=0)
    for queue in idle:
        driver.enqueue(10, queue=queue, payload=bytes(1_000))
    worker = driver.worker(window=0)
    ids = driver.enqueue(200, payload=bytes(1_000))
    driver.rows.forget_counts()

    driver.do(c.SetWindow(worker, 10, 1 << 30))
    got = drain(driver, worker)

    assert got == ids
    # A quarter of the memory a scan, not a row.
    assert driver.rows.scans < 20
    assert driver.engine._queues._budget.used <= 100_000
    check_invariants(driver.rows, driver.engine)
    idle_ids = drain(driver, driver.worker("idle", queues=tuple(idle), window=100))
    assert len(idle_ids) == 200
    check_invariants(driver.rows, driver.engine)


def test_flows_that_read_for_each_other_to_forget_read_less() -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=100_000), checked=False)
    worker = driver.worker(window=0)
    ids = []
    for _ in range(20):
        # In turns: each is next to be served when all others have been.
        for priority in range(40):
            ids += driver.enqueue(1, payload=bytes(1_000), name=f"t{priority}")
    driver.worker(tasks=tuple(f"t{number}" for number in range(40)), window=0)
    driver.rows.forget_counts()

    driver.do(c.SetWindow(worker, 10, 1 << 30))
    got = drain(driver, worker)

    assert got == ids
    assert driver.rows.rows_read < 5 * len(ids)


def test_a_task_enqueued_while_others_are_unread_waits_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "HEADS_MAX", 2)
    monkeypatch.setattr(flows, "REFILL_ROWS", 2)
    driver = Driver()
    ids = driver.enqueue(5)
    worker = driver.worker(window=1)
    got = []

    for _ in range(5):
        (held,) = driver.take(worker)
        ids += driver.enqueue(1)
        got.append(held.id)
        driver.complete(worker, held)

    assert got + drain(driver, worker) == ids


def test_a_task_given_back_keeps_its_place() -> None:
    driver = Driver()
    ids = driver.enqueue(6)
    worker = driver.worker(window=4)
    one, two, three, four = driver.take(worker)

    driver.do(c.SetWindow(worker, 1, 1 << 30))
    driver.release(worker, three)
    driver.release(worker, one)
    driver.complete(worker, two, four)
    got = drain(driver, worker)

    assert got == [ids[0], ids[2], ids[4], ids[5]]


@pytest.mark.parametrize("which", [0, 1, 4])
def test_a_cancelled_head_is_never_handed_out(which: int) -> None:
    driver = Driver()
    ids = driver.enqueue(5)

    assert driver.do(c.Cancel([ids[which]])) == []
    worker = driver.worker(window=2)

    assert drain(driver, worker) == [each for each in ids if each != ids[which]]


def test_a_task_cancelled_beyond_the_heads_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "HEADS_MAX", 2)
    driver = Driver()
    ids = driver.enqueue(5)

    driver.do(c.Cancel(ids[3:4]))
    worker = driver.worker()

    assert drain(driver, worker) == [*ids[:3], ids[4]]


def test_a_task_cancelled_after_it_came_back_is_never_handed_out() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.do(c.PauseQueue("q", paused=True))
    driver.release(worker, *held)

    driver.do(c.Cancel(ids[:1]))
    driver.do(c.PauseQueue("q", paused=False))

    assert drain(driver, worker) == ids[1:]


def test_all_cancelled_is_an_empty_line() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    driver.do(c.Cancel(ids))

    worker = driver.worker()

    assert driver.take(worker) == []
    assert driver.rows.of(r.READY) == {}


def test_a_drained_line_costs_no_scan_to_go_on() -> None:
    driver = Driver(checked=False)
    worker = driver.worker(window=500)
    (urgent,) = driver.enqueue(priority=255, name="later")
    count = len(driver.enqueue(20_000, dispatch=False))
    driver.dispatch()
    assert len(drain(driver, worker)) == count
    driver.rows.forget_counts()

    (next_one,) = driver.enqueue()
    assert [held.id for held in driver.take(worker)] == [next_one]
    other = driver.worker("w2", tasks=("later",))
    assert [held.id for held in driver.take(other)] == [urgent]

    assert driver.rows.reads < 20


def test_the_floor_follows_a_line_that_is_drained() -> None:
    driver = Driver(checked=False)
    worker = driver.worker(window=500)
    driver.enqueue(10_000, dispatch=False)
    driver.dispatch()
    drain(driver, worker)

    (floor,) = driver.rows.of(r.FLOW).values()

    assert 10_000 - int.from_bytes(floor, "big") <= flows.FLOOR_STEP + 500


def test_a_task_given_back_below_the_floor_lowers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "FLOOR_STEP", 2)
    driver = Driver()
    ids = driver.enqueue(8)
    worker = driver.worker(window=1)
    (first,) = driver.take(worker)
    other = driver.worker("w2", window=1)
    for _ in range(5):
        driver.complete(other, *driver.take(other))

    driver.do(c.SetWindow(worker, 0, 0))
    driver.do(c.SetWindow(other, 0, 0))
    driver.release(worker, first)
    driver.restart()
    worker = driver.worker(window=1)

    assert driver.take(worker)[0].id == ids[0]


def test_an_idle_flow_is_swept_and_opened_again() -> None:
    driver = Driver()
    driver.enqueue()
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker))
    assert len(driver.rows.of(r.FLOW)) == 1

    for _ in range(13):
        driver.now += 5_000
        driver.beat(worker)
        driver.tick()
    assert driver.rows.of(r.FLOW) == {}

    (task_id,) = driver.enqueue()
    assert [held.id for held in driver.take(worker)] == [task_id]
    assert len(driver.rows.of(r.FLOW)) == 1


def test_flows_are_swept_a_slice_at_a_time_and_a_purge_between_two_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passage, "_SWEPT_MAX", 3)
    driver = Driver()
    worker = driver.worker(queues=("a", "b"))
    for queue in ("a", "b"):
        for priority in range(5):
            driver.enqueue(queue=queue, priority=priority)
    drain(driver, worker)
    driver.engine._passage.next_sweep = driver.now
    counts = []

    while driver.engine._passage.next_sweep <= driver.now:
        driver.do(c.Tick())
        counts.append(len(driver.rows.of(r.FLOW)))
        if len(counts) == 2:
            driver.do(c.PurgeQueue("a"))
        driver.now += 10

    assert counts[0] == 8
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == 4 or counts[-1] == 0
    assert driver.rows.of(r.FLOW) == {}


def test_a_floor_is_not_written_for_the_seqs_of_other_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "FLOOR_STEP", 4)
    monkeypatch.setattr(flows, "FLOOR_ROWS", 3)
    monkeypatch.setattr(flows, "_FLOOR_SEQS", 1_000)
    driver = Driver()
    names = tuple(f"t{number}" for number in range(10))
    for _ in range(8):
        for name in names:
            driver.enqueue(1, name=name)
    worker = driver.worker(tasks=names, window=1)
    floors = 0

    while held := driver.take(worker):
        floors += sum(key[:1] == r.FLOW for key in driver.last.writes)
        driver.complete(worker, *held)

    assert 10 <= floors <= 30


def test_a_flow_whose_tasks_all_run_is_not_swept() -> None:
    driver = Driver()
    driver.enqueue()
    worker = driver.worker()
    (held,) = driver.take(worker)

    driver.beat(worker)
    driver.now += 9_000
    driver.engine._passage.next_sweep = 0
    driver.tick()
    driver.release(worker, held)

    assert len(driver.rows.of(r.FLOW)) == 1
    assert [again.id for again in driver.take(worker)] == [held.id]


def test_a_suspect_whose_line_is_partly_unread_is_found_when_it_has_been_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "HEADS_MAX", 2)
    monkeypatch.setattr(flows, "REFILL_ROWS", 2)
    driver = Driver()
    suspect = lost_once(driver)
    driver.do(c.PauseQueue("q", paused=True))
    ids = driver.enqueue(5)
    driver.do(c.PauseQueue("q", paused=False))
    worker = driver.worker(window=1)
    (held,) = driver.take(worker)
    assert (held.id, held.alone) == (suspect, True)

    driver.fail(worker, held, retry_after_ms=0)
    driver.tick()
    got = []
    while taken := driver.take(worker):
        got += [(each.id, each.alone) for each in taken]
        driver.complete(worker, *taken)

    assert got == [*((task_id, False) for task_id in ids), (suspect, True)]


def test_heads_before_a_suspect_are_not_given_up_or_it_would_be_read_again() -> None:
    driver = Driver()
    suspect = lost_once(driver)
    worker = driver.worker(window=1)
    (held,) = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 1 << 30))
    before = driver.enqueue(3)
    driver.fail(worker, held, retry_after_ms=0)
    driver.tick()
    after = driver.enqueue(3)
    (flow,) = driver.engine._queues.named("q").flows.values()
    assert len(flow.aside) == 1

    budget = driver.engine._queues._budget
    budget.holders.clear()
    must_stay = flow.give_up()
    budget.holders[flow] = None

    assert must_stay
    assert len(flow._heads) == 3
    check_invariants(driver.rows, driver.engine)
    driver.do(c.SetWindow(worker, 1, 1 << 30))
    got = []
    while taken := driver.take(worker):
        got += [each.id for each in taken]
        driver.complete(worker, *taken)
    assert got == [*before, suspect, *after]


def lost_once(driver: Driver) -> bytes:
    (task_id,) = driver.enqueue()
    worker = driver.worker("lost")
    (held,) = driver.take(worker)
    driver.start(worker, held)
    driver.die(worker)
    return task_id


def crowd(driver: Driver, flows_count: int) -> None:
    """Enqueue a task each under very many names that nobody serves."""
    for start in range(0, flows_count, 500):
        specs = [a_spec(name=f"unserved{start + number}") for number in range(500)]
        tasks = [NewTask(driver.new_id(), number, bytes(200)) for number in range(500)]
        assert driver.do(c.Enqueue(driver.new_id(), specs, tasks)) == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("looked_at", [False, True])
def test_very_many_lines_that_nobody_serves_do_not_delay_those_that_are(*, restarted: bool, looked_at: bool) -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=1 << 20), checked=False)
    crowd(driver, 9_500)
    if restarted:
        driver.restart()
    if looked_at:
        driver.rows.forget_counts()
        assert len(driver.queue().names_unserved or []) == 9_500
        assert driver.rows.rows_read < 10_000
        driver.queue()
    ids = driver.enqueue(2_000)
    driver.rows.forget_counts()

    worker = driver.worker(window=500)
    assert drain(driver, worker) == ids

    # A look at each row that is read, and a scan for each page of them.
    assert driver.rows.scans < 20
    assert driver.rows.rows_read < 2_500


def test_lines_that_are_served_no_more_give_their_memory_to_those_that_are() -> None:
    driver = Driver(settings=EngineSettings(heads_bytes_max=10_000))
    old = driver.worker("old", tasks=("u",), window=2)
    left = driver.enqueue(50, name="u", payload=bytes(1_000))
    budget = driver.engine._queues._budget
    driver.do(c.Cancel(left[4:5]))
    assert budget.used > 5_000

    driver.take(old)
    driver.do(c.Leave(old))
    assert budget.used == 0
    worker = driver.worker(window=10)
    ids = driver.enqueue(50)
    assert drain(driver, worker) == ids

    old = driver.worker("old", tasks=("u",), window=3)
    assert drain(driver, old) == [*left[:4], *left[5:]]


def test_what_came_back_from_a_dead_worker_is_remembered_although_nobody_serves_it() -> None:
    driver = Driver()
    ids = driver.enqueue(6)
    for name in ("w1", "w2"):
        worker = driver.worker(name, window=2)
        assert [held.id for held in driver.take(worker)] == ids[:2]
        driver.die(worker)

    worker = driver.worker("w3", window=2)

    (held,) = driver.take(worker)
    assert (held.id, held.alone) == (ids[0], True)
