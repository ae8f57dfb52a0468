"""Leases: one a task, fenced by its token, over crashes and restarts."""

import pytest

from tests.engine.harness import Driver
from tq.core.lease import Token, epoch_of, first_token
from tq.core.outcome import Done
from tq.engine import commands as c, rows as r


def test_a_delivery_writes_one_lease_row_and_nothing_else() -> None:
    driver = Driver()
    driver.enqueue(3)
    keys = list(driver.rows.of(r.READY))

    worker = driver.worker()

    token = first_token(1)
    assert driver.last.writes == {r.LEASE + r.u64(token): r.encode_row(r.LeaseRow(worker, False, [*keys], []))}
    assert not driver.last.promised


def test_a_settled_task_is_gone_from_its_lease_and_the_last_takes_the_row_with_it() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker()
    one, two = driver.take(worker)

    driver.complete(worker, one)
    assert len(driver.rows.of(r.LEASE)) == 1
    driver.complete(worker, two)

    assert driver.rows.of(r.LEASE) == {}


def test_a_task_settled_once_cannot_be_settled_again() -> None:
    driver = Driver()
    driver.enqueue(1)
    worker = driver.worker()
    (held,) = driver.take(worker)

    assert driver.complete(worker, held, result=b"first") == []
    assert driver.complete(worker, held, result=b"second") == [held.place]
    assert driver.fail(worker, held) == [held.place]

    assert driver.view(held.id).result == b"first"


def test_one_frame_cannot_settle_a_task_twice() -> None:
    driver = Driver()
    driver.enqueue(1)
    worker = driver.worker()
    (held,) = driver.take(worker)

    lost = driver.settle(c.Settle(worker, [Done(*held.place, b"1"), Done(*held.place, b"2")], []))

    assert lost == [held.place]
    assert driver.queue().completed_total == 1


def test_an_old_token_settles_nothing_once_the_task_is_with_another() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    slow = driver.worker("slow")
    (old,) = driver.take(slow)
    driver.die(slow)
    fast = driver.worker("fast")
    (new,) = driver.take(fast)
    driver.worker("slow")

    assert driver.complete(slow, old, result=b"stale") == [old.place]
    assert driver.state(task_id) == "running"
    assert driver.complete(fast, new, result=b"fresh") == []
    assert driver.view(task_id).result == b"fresh"


def test_an_old_token_of_the_same_worker_settles_nothing() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    (old,) = driver.take(worker)
    driver.release(worker, old)
    (new,) = driver.take(worker)

    assert old.token < new.token
    assert driver.complete(worker, old) == [old.place]
    assert driver.state(task_id) == "running"


@pytest.mark.parametrize(("token", "index"), [(0, 0), (1, 0), (-1, 0), (1 << 64, 0), (None, 1), (None, -1)])
def test_places_that_do_not_exist_are_nobodys(token: int | None, index: int) -> None:
    driver = Driver()
    driver.enqueue(1)
    worker = driver.worker()
    (held,) = driver.take(worker)
    place = (held.token if token is None else token, index)

    assert driver.settle(c.Settle(worker, [Done(*place, None)], [])) == [place]
    driver.do(c.MarkStarted(worker, [place]))
    driver.do(c.Release(worker, [place]))

    assert driver.lost == {worker: [place, place]}
    assert driver.view(held.id).started is False


def test_a_worker_settles_for_nobody_else() -> None:
    driver = Driver()
    (task_id,) = driver.enqueue()
    worker = driver.worker()
    (held,) = driver.take(worker)
    other = driver.worker("other")

    assert driver.complete(other, held) == [held.place]
    driver.do(c.Release(other, [held.place]))
    driver.do(c.MarkStarted(other, [held.place]))

    assert driver.state(task_id) == "running"
    assert driver.view(task_id).started is False


def test_a_token_is_of_the_present_epoch_and_never_issued_twice() -> None:
    driver = Driver()
    tokens: list[int] = []
    for epoch in (1, 2, 3):
        driver.enqueue(1)
        worker = driver.worker(f"w{epoch}")
        (held,) = driver.take(worker)
        tokens.append(held.token)
        assert epoch_of(Token(held.token)) == epoch
        driver.restart()

    assert tokens == sorted(set(tokens))


def test_a_token_of_a_delivery_that_was_lost_with_the_power_is_not_issued_again() -> None:
    driver = Driver()
    driver.enqueue(1)
    worker = driver.worker(window=0)
    before = dict(driver.rows.rows)
    driver.do(c.SetWindow(worker, 1, 1 << 30))
    (lost,) = driver.take(worker)

    driver.rows.rows.clear()
    driver.rows.apply(before)
    driver.restart()
    worker = driver.worker(held=[(lost.token, [lost.index], [])])
    (again,) = driver.take(worker)

    assert (again.id, again.token > lost.token) == (lost.id, True)
    assert driver.complete(worker, lost) == [lost.place]
    assert driver.complete(worker, again) == []


def test_a_started_mark_is_written_once() -> None:
    driver = Driver()
    driver.enqueue(2)
    worker = driver.worker()
    held = driver.take(worker)

    driver.start(worker, held[1])
    (row,) = driver.rows.of(r.LEASE).values()
    assert r.decode_lease(row).started == [1]
    driver.start(worker, held[1])

    assert driver.last.writes == {}


def test_a_started_task_is_lost_when_its_time_and_the_grace_are_over() -> None:
    driver = Driver()
    driver.enqueue(timeout_ms=3_000)
    worker = driver.worker()
    (held,) = driver.take(worker)
    driver.start(worker, held)
    deadline = driver.now + 3_000 + driver.settings.grace_ms

    while driver.now + 1_000 < deadline:
        driver.now += 1_000
        driver.beat(worker)
        driver.tick()
        assert driver.state(held.id) == "running"
    driver.tick(1_000)

    assert driver.lost == {worker: [held.place]}
    assert driver.view(held.id).losses == 1


def test_what_has_not_started_goes_back_unharmed_when_the_time_of_its_delivery_is_over() -> None:
    driver = Driver()
    driver.enqueue(2, timeout_ms=3_000, dispatch=False)
    worker = driver.worker(window=2)
    held = driver.take(worker)
    driver.do(c.SetWindow(worker, 0, 0))
    deadline = driver.now + 3_000 + driver.settings.grace_ms

    driver.now += 5_000
    driver.start(worker, held[0])
    while driver.now + 1_000 < deadline:
        driver.now += 1_000
        driver.beat(worker)
        driver.tick()
        assert [driver.state(each.id) for each in held] == ["running"] * 2
    driver.tick(1_000)

    assert [driver.state(each.id) for each in held] == ["running", "ready"]
    assert driver.lost == {worker: [held[1].place]}
    assert (driver.view(held[1].id).losses, driver.view(held[1].id).attempts) == (0, 0)


def test_after_a_restart_a_delivery_has_fresh_time() -> None:
    driver = Driver()
    driver.enqueue(timeout_ms=3_000)
    (held,) = driver.take(driver.worker(window=1))
    driver.tick(driver.settings.lease_ms - 1)

    driver.restart()
    worker = driver.worker(window=0, held=[(held.token, [held.index], [])])
    seen = []
    for _ in range(2):
        driver.now += (3_000 + driver.settings.grace_ms) // 2
        driver.beat(worker)
        driver.tick()
        seen.append(driver.state(held.id))

    assert seen == ["running", "ready"]


def test_deadlines_of_settled_tasks_do_not_pile_up() -> None:
    driver = Driver(checked=False)
    worker = driver.worker(window=500)
    driver.enqueue(5_000, dispatch=False)
    driver.dispatch()
    while held := driver.take(worker):
        driver.start(worker, *held)
        driver.complete(worker, *held)

    assert len(driver.engine._leases._deadlines) < 2_100
