"""Workers: sessions with secrets, alive as long as they are heard of, back with what they hold."""

import pytest

from tests.engine.harness import SECRET, Driver
from tq.core.errors import InvalidArgument, SessionUnknown
from tq.core.worker import WorkerInfo
from tq.engine import commands as c, rows as r

INFO = WorkerInfo("w", "host", 1, "async", 1, ["t"])
SESSION = b"w".ljust(16, b"_")


def test_a_worker_is_one_row_that_must_be_durable() -> None:
    driver = Driver()

    answer = driver.do(c.Register(SESSION, SECRET, INFO, []))

    assert (answer.resumed, answer.lost) == (False, [])
    assert list(driver.rows.of(r.WORKER)) == [r.WORKER + SESSION]
    assert SECRET not in b"".join(driver.rows.of(r.WORKER).values())
    assert driver.last.promised


@pytest.mark.parametrize(("session", "secret"), [(b"short", SECRET), (SESSION, b"short"), (SESSION + b"x", SECRET)])
def test_a_session_and_a_secret_have_sixteen_bytes(session: bytes, secret: bytes) -> None:
    Driver().refused(c.Register(session, secret, INFO, []), InvalidArgument)


def test_a_session_is_not_taken_over_without_its_secret() -> None:
    driver = Driver()
    driver.worker()

    driver.refused(c.Register(SESSION, b"x" * 16, INFO, []), SessionUnknown)
    with pytest.raises(SessionUnknown):
        driver.engine.check_secret(SESSION, b"x" * 16)
    driver.engine.check_secret(SESSION, SECRET)


@pytest.mark.parametrize(
    "command",
    [
        c.Subscribe(SESSION, [("q", 1)], weighted=False),
        c.SetWindow(SESSION, 1, 1),
        c.MarkStarted(SESSION, []),
        c.Release(SESSION, []),
        c.Beat(SESSION, 1),
        c.Leave(SESSION),
        c.Settle(SESSION, [], []),
    ],
)
def test_who_is_not_registered_is_told_to_do_so(command: c.Command[object]) -> None:
    Driver().refused(command, SessionUnknown)


def test_disconnecting_a_worker_that_is_gone_is_no_error() -> None:
    Driver().do(c.Disconnect(SESSION))


def test_a_silent_worker_is_forgotten_and_its_tasks_go_to_others() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker()
    held = driver.take(worker)
    other = driver.worker("other")

    driver.die(worker)

    assert [each.id for each in driver.take(other)] == ids
    assert driver.lost == {worker: [each.place for each in held]}
    assert [view.session for view in driver.do(c.ListWorkers())[0]] == [other]
    assert driver.last.writes == {}
    driver.refused(c.Beat(worker, 1), SessionUnknown)


@pytest.mark.parametrize("sign", ["beat", "started", "settle"])
def test_what_a_worker_says_keeps_it_alive(sign: str) -> None:
    driver = Driver()
    driver.enqueue(20)
    worker = driver.worker(window=20)
    held = driver.take(worker)

    for each in held[:4]:
        driver.now += driver.settings.lease_ms - 1
        match sign:
            case "beat":
                driver.beat(worker, "t")
            case "started":
                driver.start(worker, each)
            case _:
                driver.complete(worker, each)
        driver.tick()

    (view,) = driver.do(c.ListWorkers())[0]
    assert (view.session, view.seen_at) == (worker, driver.now)


def stall(driver: Driver, worker: bytes) -> None:
    """Let the loop of *worker* stand still, while its heartbeats come, until it is taken for stalled."""
    driver.beat(worker)
    driver.beat(worker, turns=False)
    for _ in range(driver.settings.lease_ms // 2_000):
        driver.now += 2_000
        for view in driver.do(c.ListWorkers(), dispatch=False)[0]:
            driver.beat(view.session, turns=view.session != worker)
        driver.tick()


def test_a_worker_whose_loop_does_not_turn_gives_up_what_it_has_not_started() -> None:
    driver = Driver()
    driver.enqueue(3, dispatch=False)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.start(worker, held[0])

    stall(driver, worker)

    assert [driver.state(each.id) for each in held] == ["running", "ready", "ready"]
    assert driver.lost == {worker: [each.place for each in held[1:]]}
    assert [driver.view(each.id).losses for each in held] == [0, 0, 0]
    assert driver.complete(worker, held[0]) == []


def test_a_worker_whose_loop_turns_in_time_keeps_all() -> None:
    driver = Driver()
    driver.enqueue(3, dispatch=False)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.beat(worker)

    for _ in range(3):
        driver.beat(worker, turns=False)
        driver.now += driver.settings.lease_ms - 1
        driver.beat(worker, turns=False)
        driver.tick()
        driver.beat(worker)

    assert [driver.state(each.id) for each in held] == ["running"] * 3


@pytest.mark.parametrize("sign", ["a heartbeat", "a new connection"])
def test_a_stalled_worker_gets_nothing_until_its_loop_turns(sign: str) -> None:
    driver = Driver()
    worker = driver.worker()
    stall(driver, worker)

    driver.enqueue(1)
    before = driver.take(worker)
    if sign == "a heartbeat":
        driver.beat(worker)
    else:
        driver.worker()

    assert (before, len(driver.take(worker))) == ([], 1)


def test_a_stalled_worker_is_not_the_one_that_is_emptied_for_a_suspect() -> None:
    driver = Driver()
    (suspect_id,) = driver.enqueue(1, max_losses=9)
    killed = driver.worker("killed")
    driver.start(killed, *driver.take(killed))
    stalled, healthy = driver.worker("stalled"), driver.worker("healthy", window=2)
    stall(driver, stalled)
    driver.enqueue(9)
    first, second = driver.take(healthy)

    driver.now += driver.settings.lease_ms
    driver.beat(healthy)
    driver.beat(stalled, turns=False)
    driver.tick()
    driver.complete(healthy, first)
    driver.complete(healthy, second)

    assert [held.id for held in driver.take(healthy)] == [suspect_id]


def test_a_lease_hangs_on_heartbeats_and_not_on_the_connection() -> None:
    driver = Driver()
    driver.enqueue(1)
    worker = driver.worker()
    (held,) = driver.take(worker)

    driver.do(c.Disconnect(worker))
    driver.tick(driver.settings.lease_ms - 1)

    assert driver.state(held.id) == "running"


def test_a_worker_that_comes_back_keeps_what_it_holds() -> None:
    driver = Driver()
    driver.enqueue(3)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.do(c.Disconnect(worker))

    answer = driver.connect("w", ("t",), [(held[0].token, [0, 2], [2])])

    assert (answer.resumed, answer.lost) == (True, [])
    assert [driver.state(each.id) for each in held] == ["running", "ready", "running"]
    assert [driver.view(each.id).started for each in held] == [False, False, True]
    assert driver.view(held[1].id).losses == 0
    assert driver.complete(worker, held[0], held[2]) == []


def test_a_worker_that_comes_back_is_told_what_it_has_lost() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker()
    held = driver.take(worker)
    driver.complete(worker, held[0])

    answer = driver.connect("w", ("t",), [(held[0].token, [0, 1], []), (99, [5], [5])])

    assert answer.lost == [held[0].place, (99, 5)]


def test_a_worker_back_in_time_stops_the_taking_back_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tq.engine.custody.SLICE_BYTES", 250)
    driver = Driver()
    driver.enqueue(6)
    worker = driver.worker(window=6)
    held = driver.take(worker)
    driver.now += driver.settings.lease_ms

    driver.do(c.Tick(), dispatch=False)
    taken = driver.lost[worker]
    assert 0 < len(taken) < 6
    driver.do(c.SetWindow(worker, 0, 0), dispatch=False)
    driver.beat(worker)
    driver.tick()

    kept = [each for each in held if each.place not in taken]
    assert driver.lost[worker] == taken
    assert [driver.state(each.id) for each in kept] == ["running"] * len(kept)
    assert driver.complete(worker, *held) == taken


def test_a_worker_that_comes_back_has_no_window_until_it_says_one() -> None:
    driver = Driver()
    worker = driver.worker()
    driver.do(c.Disconnect(worker))

    driver.connect("w", ("t",), [])
    driver.enqueue(1)
    assert driver.take(worker) == []

    driver.do(c.SetWindow(worker, 1, 1 << 30))
    assert len(driver.take(worker)) == 1


def test_a_worker_with_new_handlers_is_served_by_them() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue(name="new")
    driver.worker(tasks=("old",))

    worker = driver.worker(tasks=("new",))
    assert [held.id for held in driver.take(worker)] == [task_id]

    driver.restart()
    assert [view.info.tasks for view in driver.do(c.ListWorkers())[0]] == [["new"]]


def test_a_worker_that_leaves_gives_back_all_unharmed() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.start(worker, held[0])

    driver.do(c.Leave(worker))

    assert [driver.state(task_id) for task_id in ids] == ["ready"] * 3
    assert [driver.view(task_id).losses for task_id in ids] == [0, 0, 0]
    assert driver.rows.of(r.WORKER) == {}
    assert driver.do(c.ListWorkers())[0] == []


def test_a_worker_is_shown_with_what_it_does() -> None:
    driver = Driver()
    driver.enqueue(3, queue="a")
    worker = driver.worker(queues=("a", "b"))
    driver.start(worker, *driver.take(worker)[:2])
    driver.beat(worker, "slow_one")

    (view,) = driver.do(c.ListWorkers())[0]

    assert (view.queues, view.held, view.started, view.blocked_by) == (["a", "b"], 3, 2, "slow_one")
    assert (view.connected, view.isolating) == (True, False)


def test_a_worker_is_shown_with_the_handlers_that_go_on_until_they_have_ended() -> None:
    driver = Driver()
    worker = driver.worker()

    driver.do(c.Beat(worker, 1, stuck=["deaf", "deaf"]))
    (before,) = driver.do(c.ListWorkers())[0]
    driver.do(c.Beat(worker, 2, stuck=[]))
    (after,) = driver.do(c.ListWorkers())[0]

    assert (before.stuck, after.stuck) == (["deaf", "deaf"], [])


def test_released_tasks_go_to_others_in_their_old_order() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    worker = driver.worker(window=3)
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    other = driver.worker("other")

    driver.release(worker, held[2], held[0])

    assert [each.id for each in driver.take(other)] == [ids[0], ids[2]]


def test_what_a_worker_holds_is_found_without_a_look_at_what_others_hold() -> None:
    driver = Driver()
    driver.enqueue(5)
    one, two = driver.worker("w1", window=2), driver.worker("w2", window=3)
    (first, second), others = driver.take(one), driver.take(two)
    driver.start(one, second)
    driver.start(two, *others[:2])

    leases = driver.engine._leases

    assert [task.id for task in leases.held_by(one)] == [first.id, second.id]
    assert [leases.started_by(session) for session in (one, two, b"nobody")] == [1, 2, 0]
    views, _ = driver.do(c.ListWorkers())
    assert [view.started for view in views] == [1, 2]
    driver.do(c.SetWindow(one, 0, 1))
    driver.complete(one, second)
    driver.release(one, first)
    assert list(leases.held_by(one)) == []
    assert leases.started_by(one) == 0


def test_when_workers_are_over_is_known_without_a_look_at_each_until_it_comes() -> None:
    driver = Driver()
    lease_ms = driver.settings.lease_ms
    worker = driver.worker("w1")
    began = driver.now
    workers = driver.engine._workers
    assert workers.next_over(driver.now) == began + lease_ms

    driver.now += 1_000
    driver.beat(worker)

    # A heartbeat moves it on only; that is found out when it has come.
    assert workers.next_over(driver.now) == began + lease_ms
    assert workers.next_over(began + lease_ms) == began + lease_ms + 1_000
    assert [each.session for each in workers.silent(began + lease_ms + 1_000)] == [worker]
