"""Waiters: who is told of an end, and who no more."""

import pytest

from tests.engine.harness import Driver
from tq.core.errors import Overloaded
from tq.engine import commands as c, waiters


def finish(driver: Driver) -> None:
    worker = driver.worker()
    driver.complete(worker, *driver.take(worker))


def told(driver: Driver) -> list[tuple[bytes, list[int]]]:
    return [(ending.result.id, sorted(ending.waiters)) for ending in driver.endings]


def test_every_connection_that_waits_is_told_once() -> None:
    driver = Driver()
    one, two = driver.enqueue(2)
    driver.do(c.Wait(1, [one, two, one]))
    driver.do(c.Wait(2, [one]))

    finish(driver)

    assert told(driver) == [(one, [1, 2]), (two, [1])]
    assert len(driver.engine._waiters._by_connection) == 0


def test_an_end_that_is_told_is_synced_first() -> None:
    driver = Driver()
    ids = driver.enqueue(1)
    driver.do(c.Wait(1, ids))
    driver.do(c.PurgeQueue("q"))

    driver.do(c.Tick())

    assert driver.last.endings
    assert driver.last.promised


def test_who_no_longer_waits_is_not_told() -> None:
    driver = Driver()
    one, two = driver.enqueue(2)
    driver.do(c.Wait(1, [one, two]))
    driver.do(c.Wait(2, [one, two]))

    driver.do(c.Unwait(1, [one]))
    driver.do(c.Unwait(2, None))
    driver.do(c.Unwait(3, None))
    driver.do(c.Unwait(3, [one]))
    finish(driver)

    assert told(driver) == [(two, [1])]


def test_who_waits_is_told_after_every_kind_of_end() -> None:
    driver = Driver()
    ids = driver.enqueue(3)
    driver.do(c.Wait(1, ids))
    worker = driver.worker(window=2)
    completed, rejected = driver.take(worker)

    driver.do(c.SetWindow(worker, 0, 0))
    driver.do(c.Cancel(ids[2:]))
    driver.complete(worker, completed)
    driver.fail(worker, rejected, reject=True)

    assert [(ending.result.id, ending.result.state.value) for ending in driver.endings] == [
        (ids[2], "cancelled"),
        (ids[0], "completed"),
        (ids[1], "dead"),
    ]


def test_a_retry_is_no_end() -> None:
    driver = Driver()
    driver.do(c.Wait(1, driver.enqueue(1)))
    worker = driver.worker()

    driver.fail(worker, *driver.take(worker))

    assert driver.endings == []


def test_waits_beyond_the_limit_are_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "WAITS_MAX", 3)
    driver = Driver()
    ids = driver.enqueue(4)
    driver.do(c.Wait(1, ids[:2]))

    error = driver.refused(c.Wait(2, ids), Overloaded)
    assert "3 waits for results may be held, 2 are" in str(error)
    driver.do(c.Wait(2, ids[:1]))
    driver.do(c.Wait(1, ids[:2]))
    driver.refused(c.Wait(3, ids[:1]), Overloaded)

    driver.do(c.Unwait(1, None))
    driver.do(c.Wait(3, ids[2:]))
