"""Operations: purge, redrive and forget, over many batches and restarts."""

from collections.abc import Iterator

import pytest

from tests.engine.harness import Driver, a_spec
from tq.core.errors import BatchTooLarge, BrokerError, TaskNotFound, WrongState
from tq.core.ids import compose
from tq.core.lifecycle import TaskState
from tq.core.times import Timestamp
from tq.engine import changes, commands as c, operations, rows as r
from tq.engine.operations import SLICE_BYTES, SLICE_ROWS

UNKNOWN = compose(Timestamp(1), 1)


def dead(driver: Driver, count: int = 1, **fields: object) -> list[bytes]:
    """Make dead letters; in the order of their death."""
    frame = driver.frame(count, spec=a_spec(**fields))
    driver.do(frame)
    worker = driver.worker("undertaker", queues=(str(fields.get("queue", "q")),), window=1_000)
    while held := driver.take(worker):
        driver.fail(worker, *held, reject=True)
    driver.do(c.Leave(worker))
    return [task.id for task in frame.tasks]


# ------------------------------------------------------------------------------------------------ purge


def test_a_purge_takes_effect_at_once_and_is_carried_out_in_slices() -> None:
    driver = Driver(checked=False)
    ids = driver.enqueue(1_000)

    assert driver.do(c.PurgeQueue("q"), dispatch=False) == 1_000

    assert len(driver.last.writes) < 10
    assert driver.last.promised
    view = driver.queue()
    assert (view.ready, view.purged_total, view.purging) == (0, 1_000, True)
    assert driver.do(c.Get(ids[:3])) == [None] * 3
    assert driver.do(c.Wait(1, ids[:3])) == ([], ids[:3])
    assert driver.do(c.ListTasks("ready", "q", 10, None)) == ([], None)
    worker = driver.worker()
    assert driver.take(worker) == []
    driver.do(c.Tick())
    assert len(driver.rows.of(r.READY)) == 1_000 - SLICE_ROWS
    driver.tick()
    assert (driver.rows.of(r.READY), driver.rows.of(r.TASK), driver.rows.of(r.OPERATION)) == ({}, {}, {})
    assert not driver.queue().purging


def test_what_is_enqueued_right_after_a_purge_survives_it() -> None:
    driver = Driver()
    driver.enqueue(5)
    changes = driver.engine.changes()

    driver.engine.apply(c.PurgeQueue("q"), driver.now, changes)
    frame = driver.frame(3)
    driver.engine.apply(frame, driver.now, changes)
    driver.finish(changes)
    driver.tick()

    worker = driver.worker()
    assert [held.id for held in driver.take(worker)] == [task.id for task in frame.tasks]


@pytest.mark.parametrize("slices", [0, 1, 2])
def test_a_purge_goes_on_after_a_restart(slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    driver.enqueue(6)
    driver.do(c.PurgeQueue("q"))
    new = driver.enqueue(2)
    for _ in range(slices):
        driver.do(c.Tick())

    driver.restart()
    assert driver.queue().purging
    worker = driver.worker()
    assert [held.id for held in driver.take(worker)] == new
    driver.tick()

    assert len(driver.rows.of(r.READY)) == 2
    assert driver.rows.of(r.OPERATION) == {}


def test_two_purges_are_carried_out_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    driver.enqueue(5)
    driver.do(c.PurgeQueue("q"))
    driver.enqueue(3)

    assert driver.do(c.PurgeQueue("q")) == 3
    driver.tick()

    assert driver.rows.of(r.READY) == {}
    assert driver.queue().purged_total == 8


class Uncounted(dict[bytes, r.OperationRow]):
    """Operations that nobody may walk over."""

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("walked over all operations")

    values = items = __iter__  # type: ignore[assignment]


def test_whether_a_queue_is_being_purged_is_known_without_a_look_at_each_operation() -> None:
    driver = Driver(checked=False)
    for queue in ("a", "b"):
        driver.enqueue(queue=queue)
        driver.do(c.PurgeQueue(queue))
    driver.enqueue(queue="c")
    driver.do(c.PurgeQueue("a"))
    driver.restart()
    operations = driver.engine._operations
    rows, operations._open = operations._open, Uncounted(operations._open)
    assert [view.purging for view in driver.do(c.ListQueues(None))[0]] == [True, True, False]
    operations._open = rows

    driver.tick()

    assert [view.purging for view in driver.do(c.ListQueues(None))[0]] == [False] * 3
    assert not operations._purges


def test_what_runs_while_its_queue_is_purged_may_finish() -> None:
    driver = Driver()
    driver.enqueue(5)
    worker = driver.worker(window=3)
    done, failed, rejected = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))

    assert driver.do(c.PurgeQueue("q")) == 2
    driver.tick()
    assert driver.queue().running == 3
    assert driver.complete(worker, done, result=b"r") == []
    assert driver.fail(worker, failed, retry_after_ms=1_000) == []
    assert driver.fail(worker, rejected, reject=True) == []

    assert [driver.state(held.id) for held in (done, failed, rejected)] == ["completed", "scheduled", "dead"]
    driver.do(c.SetWindow(worker, 1, 1 << 30))
    driver.tick(1_000)
    assert [held.id for held in driver.take(worker)] == [failed.id]


@pytest.mark.parametrize("how", ["release", "die", "leave", "restart"])
@pytest.mark.parametrize("removed", [False, True])
def test_what_comes_back_to_a_purged_queue_is_gone_and_who_waits_is_told(how: str, *, removed: bool) -> None:
    driver = Driver()
    driver.enqueue(3)
    worker = driver.worker(window=1)
    (held,) = driver.take(worker)
    driver.do(c.Wait(5, [held.id]))
    driver.do(c.PurgeQueue("q"))
    if removed:
        driver.tick()

    match how:
        case "release":
            driver.release(worker, held)
        case "die":
            driver.start(worker, held)
            driver.die(worker)
        case "leave":
            driver.do(c.Leave(worker))
        case _:
            driver.restart()
            driver.do(c.Wait(5, [held.id]))
            driver.connect("w", ("t",), [])
    assert driver.last.promised or how == "die"
    driver.tick()

    assert driver.state(held.id) == "unknown"
    assert [(ending.result.id, ending.result.state, ending.result.finished_at > 0) for ending in driver.endings] == [
        (held.id, TaskState.CANCELLED, True)
    ]
    assert (driver.queue().running, driver.queue().ready, driver.queue().purged_total) == (0, 0, 3)
    assert (driver.rows.of(r.READY), driver.rows.of(r.TASK), driver.rows.of(r.LEASE)) == ({}, {}, {})


def test_who_waits_for_purged_tasks_is_told() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    driver.do(c.Wait(5, ids))

    driver.do(c.PurgeQueue("q"))
    driver.tick()

    assert {ending.result.id: ending.result.state for ending in driver.endings} == dict.fromkeys(
        ids, TaskState.CANCELLED
    )


def scheduled(driver: Driver, count: int = 1, queue: str = "q", after_ms: int = 5_000) -> list[bytes]:
    """Let tasks fail, to be tried again later."""
    ids = driver.enqueue(count, queue=queue)
    worker = driver.worker("failing", queues=(queue,), window=1_000)
    while held := driver.take(worker):
        driver.fail(worker, *held, retry_after_ms=after_ms)
    driver.do(c.Leave(worker))
    return ids


def test_a_purged_task_that_was_scheduled_is_gone_at_once_and_its_rows_before_it_is_due() -> None:
    driver = Driver()
    (task_id,) = scheduled(driver)
    driver.do(c.Wait(5, [task_id]))

    assert driver.do(c.PurgeQueue("q")) == 1
    assert (driver.queue().scheduled, driver.state(task_id)) == (0, "unknown")
    assert driver.do(c.ListTasks("scheduled", None, 10, None)) == ([], None)
    driver.tick()

    assert (driver.rows.of(r.DUE), driver.rows.of(r.TASK), driver.rows.of(r.OPERATION)) == ({}, {}, {})
    assert [(ending.result.id, ending.result.state) for ending in driver.endings] == [(task_id, TaskState.CANCELLED)]
    driver.tick(5_000)
    assert len(driver.endings) == 1


def test_a_purged_task_that_comes_due_before_its_rows_are_removed_is_gone_too() -> None:
    driver = Driver()
    (task_id,) = scheduled(driver, after_ms=0)
    driver.do(c.Wait(5, [task_id]))

    driver.do(c.PurgeQueue("q"))
    driver.tick()

    assert driver.take(driver.worker()) == []
    assert (driver.rows.of(r.DUE), driver.rows.of(r.TASK)) == ({}, {})
    assert [(ending.result.id, ending.result.state) for ending in driver.endings] == [(task_id, TaskState.CANCELLED)]


def test_a_purge_removes_scheduled_rows_in_slices_and_leaves_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    mine, other = scheduled(driver, 5), scheduled(driver, 5, "other")
    driver.do(c.PurgeQueue("q"))
    again = scheduled(driver, 3, after_ms=2_000)
    while len(driver.rows.of(r.DUE)) == 13:
        driver.do(c.Tick())

    assert len(driver.rows.of(r.DUE)) >= 11
    driver.restart()
    driver.tick()

    assert len(driver.rows.of(r.DUE)) == 8
    assert {driver.state(task_id) for task_id in mine} == {"unknown"}
    assert {driver.state(task_id) for task_id in other + again} == {"scheduled"}
    assert (driver.queue().scheduled, driver.queue("other").scheduled) == (3, 5)


def test_a_purge_of_a_queue_in_which_nothing_is_scheduled_walks_over_no_timeline() -> None:
    driver = Driver(checked=False)
    scheduled(driver, 1_000, "other")
    driver.enqueue(3)
    driver.do(c.PurgeQueue("q"))
    driver.rows.forget_counts()

    driver.tick()

    assert not driver.queue().purging
    assert driver.rows.rows_read < 20


def test_purges_of_many_queues_share_a_walk_over_the_timeline() -> None:
    driver = Driver(checked=False)
    others = scheduled(driver, 1_000, "other")
    names = [f"q{number}" for number in range(20)]
    mine = [scheduled(driver, 2, name) for name in names]
    for name in names:
        driver.do(c.PurgeQueue(name))
    driver.rows.forget_counts()

    driver.tick()

    # Two walks at most, and what else there is.
    assert driver.rows.rows_read < 2 * 1_040 + 500
    assert driver.rows.of(r.OPERATION) == {}
    assert len(driver.rows.of(r.DUE)) == len(others)
    assert {driver.state(task_id) for ids in mine for task_id in ids} == {"unknown"}
    assert {driver.state(task_id) for task_id in others} == {"scheduled"}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("ticks", range(2, 12))
def test_a_purge_during_the_walk_of_another_loses_no_row(
    ticks: int, monkeypatch: pytest.MonkeyPatch, *, restarted: bool
) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    for queue in ("b", "a", "b", "a", "c"):
        scheduled(driver, 2, queue)
    driver.do(c.PurgeQueue("a"))
    driver.do(c.PurgeQueue("c"))
    for _ in range(ticks):
        driver.do(c.Tick())

    driver.do(c.PurgeQueue("b"))
    kept = scheduled(driver, 2, "b")
    if restarted:
        driver.restart()
    driver.tick()

    assert len(driver.rows.of(r.DUE)) == len(driver.rows.of(r.TASK)) == 2
    assert {driver.state(task_id) for task_id in kept} == {"scheduled"}
    assert driver.rows.of(r.OPERATION) == {}


def test_a_purge_of_a_queue_of_many_flows_begins_with_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 20)
    driver = Driver()
    for priority in range(100):
        driver.enqueue(priority=priority)

    driver.do(c.PurgeQueue("q"))
    assert len(driver.last.writes) < 10
    assert len(driver.rows.of(r.FLOW)) == 100
    driver.enqueue()
    driver.restart()
    driver.tick()

    assert len(driver.rows.of(r.FLOW)) == 1
    assert driver.queue().ready == 1


def test_a_purge_leaves_dead_letters_and_results_and_other_queues() -> None:
    driver = Driver()
    (buried,) = dead(driver)
    (other,) = driver.enqueue(queue="other")
    (done,) = driver.enqueue()
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker))

    assert driver.do(c.PurgeQueue("q")) == 0
    driver.tick()

    assert [driver.state(task_id) for task_id in (buried, other, done)] == ["dead", "ready", "completed"]


def test_a_purge_forgets_suspects_and_empties_nobody_for_them() -> None:
    driver = Driver()
    driver.enqueue(1)
    victim = driver.worker("victim")
    driver.start(victim, *driver.take(victim))
    driver.die(victim)

    driver.do(c.PurgeQueue("q"))
    driver.tick()
    ids = driver.enqueue(2)
    worker = driver.worker(window=1)

    assert [held.id for held in driver.take(worker)] == ids[:1]


# ------------------------------------------------------------------------------------------------ dead letters


def test_redriven_tasks_are_new_generations_that_can_complete() -> None:
    driver = Driver()
    ids = dead(driver, 3)

    assert driver.do(c.RedriveDead("q", [])) == 3

    views = [driver.view(task_id) for task_id in ids]
    assert [(view.state, view.generation, view.attempts) for view in views] == [(TaskState.READY, 2, 0)] * 3
    assert all(view.failure is None for view in views)
    worker = driver.worker()
    held = driver.take(worker)
    assert [each.id for each in held] == ids
    driver.complete(worker, *held)
    assert [driver.state(task_id) for task_id in ids] == ["completed"] * 3
    assert (driver.queue().dead, driver.queue().dead_total) == (0, 3)


def test_some_can_be_redriven_by_id() -> None:
    driver = Driver()
    ids = dead(driver, 3)

    assert driver.do(c.RedriveDead(None, [ids[1], ids[1]])) == 1

    assert [driver.state(task_id) for task_id in ids] == ["dead", "ready", "dead"]


def test_a_redriven_task_waits_at_the_end_of_its_line() -> None:
    driver = Driver()
    (redriven,) = dead(driver)
    ids = driver.enqueue(2)

    driver.do(c.RedriveDead("q", []))
    worker = driver.worker()

    assert [held.id for held in driver.take(worker)] == [*ids, redriven]


def test_forgotten_dead_letters_are_gone() -> None:
    driver = Driver()
    ids = dead(driver, 3)

    assert driver.do(c.ForgetDead(None, [ids[0]])) == 1
    assert driver.do(c.ForgetDead("q", [])) == 2

    assert driver.do(c.Get(ids)) == [None] * 3
    assert (driver.queue().dead, driver.queue().purged_total) == (0, 3)
    driver.tick(driver.settings.dead_retention_ms + 1_000)
    assert driver.rows.of(r.EXPIRY) == {}


@pytest.mark.parametrize("command", [c.RedriveDead, c.ForgetDead])
def test_a_named_task_that_is_not_dead_has_the_request_refused_whole(
    command: type[c.RedriveDead] | type[c.ForgetDead],
) -> None:
    driver = Driver()
    ids = dead(driver, 2)
    (ready,) = driver.enqueue()

    driver.refused(command(None, [ids[0], UNKNOWN]), TaskNotFound)
    driver.refused(command(None, [ids[0], ready]), WrongState)
    driver.refused(command(None, [UNKNOWN] * 1_001), BatchTooLarge)


def test_more_bytes_than_one_change_may_hold_are_refused_by_id_and_done_in_slices_by_queue() -> None:
    driver = Driver(checked=False)
    ids = [dead_id for _ in range(4) for dead_id in dead_with(driver, bytes(200_000))]

    error: BrokerError = driver.refused(c.RedriveDead(None, ids), BatchTooLarge)
    assert "524288 bytes of tasks a request at most" in str(error)

    assert driver.do(c.RedriveDead("q", [])) == 4
    assert size(driver) < SLICE_BYTES + 201_000
    assert driver.queue().dead == 3
    driver.tick()
    assert (driver.queue().dead, driver.queue().ready) == (0, 4)


def dead_with(driver: Driver, payload: bytes) -> list[bytes]:
    frame = driver.frame(1, payload)
    driver.do(frame)
    worker = driver.worker("undertaker")
    driver.fail(worker, *driver.take(worker), reject=True)
    driver.do(c.Leave(worker))
    return [task.id for task in frame.tasks]


def size(driver: Driver) -> int:
    return sum(len(key) + len(value or b"") for key, value in driver.last.writes.items())


def test_redriving_all_queues_changes_no_more_at_once_than_redriving_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    for queue in ("a", "b", "c"):
        dead(driver, 3, queue=queue)

    assert driver.do(c.RedriveDead(None, [])) == 9

    assert sum(view.dead for view in driver.do(c.ListQueues(None))[0]) == 7
    driver.tick()
    assert sum(view.dead for view in driver.do(c.ListQueues(None))[0]) == 0


def test_an_act_on_the_dead_letters_of_very_many_queues_begins_with_one_row() -> None:
    driver = Driver(checked=False)
    for number in range(30):
        dead(driver, queue=f"q{number}")

    assert driver.do(c.ForgetDead(None, [])) == 30
    assert len([key for key in driver.last.writes if key[:1] == r.OPERATION]) == 1
    (young,) = dead(driver, queue="q0")
    driver.tick()

    assert driver.state(young) == "dead"
    assert len(driver.rows.of(r.DEAD)) == 1


def test_a_redrive_goes_on_after_a_restart_and_takes_none_that_died_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "SLICE_ROWS", 2)
    driver = Driver()
    ids = dead(driver, 5)
    driver.do(c.RedriveDead("q", []))
    driver.restart()
    worker = driver.worker()
    (first, _) = driver.take(worker)

    driver.fail(worker, first, reject=True)
    driver.do(c.SetWindow(worker, 0, 0))
    driver.tick()

    states = [driver.state(task_id) for task_id in ids]
    assert states == ["dead", "running", "ready", "ready", "ready"]
    assert driver.view(ids[0]).generation == 2


def test_a_redriven_task_in_a_paused_queue_waits() -> None:
    driver = Driver()
    ids = dead(driver)
    driver.do(c.PauseQueue("q", paused=True))

    driver.do(c.RedriveDead("q", []))

    worker = driver.worker()
    assert driver.take(worker) == []
    driver.do(c.PauseQueue("q", paused=False))
    assert [held.id for held in driver.take(worker)] == ids


def test_a_purge_that_frees_much_says_which_range_once_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "EMPTIED_BYTES_MIN", 80_000)
    driver = Driver()
    driver.enqueue(100, queue="a", payload=bytes(400))
    driver.enqueue(100, queue="b", payload=bytes(400))
    emptied: list[tuple[bytes, bytes]] = []

    for queue in ("a", "b"):
        assert emptied == []
        driver.do(c.PurgeQueue(queue))
        while len(driver.engine._operations):
            driver.do(c.Tick())
            emptied += driver.last.emptied

    assert driver.rows.of(r.READY) == {}
    first, second = (r.generation_prefix(r.READY, number, 1) for number in (1, 2))
    assert [start for start, _ in emptied] == [first, second]
    assert all(start < end <= start + b"\xff" * 17 for start, end in emptied)
    assert driver.engine._operations._emptied == []


def test_a_purge_of_little_asks_for_nothing() -> None:
    driver = Driver()
    driver.enqueue(10)

    driver.do(c.PurgeQueue("q"))
    while len(driver.engine._operations):
        driver.do(c.Tick())
        assert driver.last.emptied == []


def test_a_purge_of_much_that_is_scheduled_says_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "EMPTIED_BYTES_MIN", 60_000)
    driver = Driver(checked=False)
    early = scheduled(driver, 10, "other", after_ms=1_000)
    emptied: list[tuple[bytes, bytes]] = []
    due: set[bytes] = set()

    for queue in ("a", "b"):
        assert emptied == []
        scheduled(driver, 500, queue)
        due |= driver.rows.of(r.DUE).keys()
        driver.do(c.PurgeQueue(queue))
        while len(driver.engine._operations):
            driver.do(c.Tick())
            emptied += driver.last.emptied

    assert driver.rows.of(r.DUE).keys() == set(sorted(due)[:10])
    gone = [span for span in emptied if span[0].startswith(r.DUE)]
    assert gone == [(sorted(due)[10], max(due) + b"\0")]
    assert {driver.state(task_id) for task_id in early} == {"scheduled"}


def test_a_purge_that_walks_over_much_that_is_not_its_own_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "EMPTIED_BYTES_MIN", 60_000)
    driver = Driver(checked=False)
    scheduled(driver, 1_000, "other")
    scheduled(driver, 1, "q")

    driver.do(c.PurgeQueue("q"))
    while len(driver.engine._operations):
        driver.do(c.Tick())
        assert driver.last.emptied == []

    assert len(driver.rows.of(r.DUE)) == 1_000
