"""Places: the movers are the ways of the life cycle, and each leaves the rows that it says."""

from collections.abc import Callable

import pytest

from tests.engine.harness import Driver
from tq.core.lifecycle import TRANSITIONS, Step, TaskState
from tq.core.retry import RetryPolicy
from tq.engine import commands as c
from tq.engine.places import MOVES, PLACES, Move, Moves
from tq.engine.rows import DEAD, DUE, ENDED, LEASE, READY, TASK, decode_lease


def places_of(driver: Driver, task_id: bytes) -> frozenset[bytes]:
    """The kinds of row that a task is in, as the store has them."""
    place = driver.rows.get(TASK + task_id)
    if place is None:
        return frozenset()
    if place.startswith(ENDED):
        return frozenset({ENDED})
    leased = any(place in decode_lease(value).keys for value in driver.rows.of(LEASE).values())
    assert driver.rows.get(place) is not None
    return frozenset({place[:1], LEASE} if leased else {place[:1]})


def test_every_way_of_the_life_cycle_has_its_mover_and_no_other_exists() -> None:
    MOVES.check()

    assert MOVES.by_way.keys() == TRANSITIONS.keys()


def test_a_way_added_to_the_table_is_missed() -> None:
    moves = Moves({**TRANSITIONS, (TaskState.SCHEDULED, Step.BURY): TaskState.DEAD})
    for move in MOVES.by_way.values():
        moves.add(move)

    with pytest.raises(LookupError, match="nobody moves a task from scheduled, give up"):
        moves.check()


@pytest.mark.parametrize("way", TRANSITIONS, ids=str)
def test_a_mover_without_its_way_in_the_table_is_refused(way: tuple[TaskState | None, Step]) -> None:
    moves = Moves({each: target for each, target in TRANSITIONS.items() if each != way})

    with pytest.raises(LookupError, match="the life cycle has no way from"):
        moves.add(MOVES.by_way[way])


@pytest.mark.parametrize("way", TRANSITIONS, ids=str)
def test_a_second_mover_of_a_way_is_refused(way: tuple[TaskState | None, Step]) -> None:
    moves = Moves(TRANSITIONS)
    moves.add(MOVES.by_way[way])

    with pytest.raises(LookupError, match="two movers from"):
        moves.add(MOVES.by_way[way])


def test_a_way_that_leads_elsewhere_asks_for_other_rows() -> None:
    moves = Moves({**TRANSITIONS, (TaskState.RUNNING, Step.RETRY): TaskState.READY})

    with pytest.raises(ValueError, match="the mover from running, retry deletes"):
        moves.add(MOVES.by_way[TaskState.RUNNING, Step.RETRY])


def test_a_mover_that_leaves_a_row_behind_is_refused() -> None:
    with pytest.raises(ValueError, match="its states ask for"):
        Moves(TRANSITIONS).add(Move(TaskState.SCHEDULED, Step.DUE, frozenset(), frozenset({READY})))


def test_the_states_of_a_life_are_told_apart_by_their_rows() -> None:
    alive = [places for state, places in PLACES.items() if places != {ENDED}]

    assert len(set(alive)) == len(alive)
    assert PLACES.keys() == {None, *TaskState}


def ready(driver: Driver) -> bytes:
    (task_id,) = driver.enqueue()
    return task_id


def running(driver: Driver, *, started: bool = False, attempts: int = 2) -> bytes:
    (task_id,) = driver.enqueue(retry=RetryPolicy(max_attempts=attempts))
    session = driver.worker("w")
    (held,) = driver.take(session)
    driver.inbox[session] = [held]
    if started:
        driver.start(session, held)
    return task_id


def scheduled(driver: Driver) -> bytes:
    task_id = running(driver)
    settle(driver, fails=True)
    return task_id


def dead(driver: Driver) -> bytes:
    task_id = running(driver, attempts=1)
    settle(driver, fails=True)
    return task_id


def settle(driver: Driver, *, fails: bool = False) -> None:
    ((session, (held,)),) = driver.inbox.items()
    if fails:
        driver.fail(session, held)
    else:
        driver.complete(session, held)


def quit_all(driver: Driver) -> None:
    (session,) = driver.inbox
    driver.do(c.Leave(session))


def quit_all_and_wait(driver: Driver) -> None:
    quit_all(driver)
    driver.tick(3_600_000)


def redrive(driver: Driver, task_id: bytes) -> None:
    quit_all(driver)
    driver.do(c.RedriveDead(None, [task_id]))


def purge(driver: Driver) -> None:
    driver.do(c.PurgeQueue("q"))
    driver.tick()


def purge_and_quit_all(driver: Driver) -> None:
    purge(driver)
    quit_all(driver)


Way = tuple[TaskState | None, Step]
LIVES: dict[Way, tuple[Callable[[Driver], bytes], Callable[[Driver, bytes], object]]] = {
    (TaskState.READY, Step.CANCEL): (ready, lambda d, i: d.do(c.Cancel([i]))),
    (TaskState.READY, Step.DELIVER): (ready, lambda d, _: d.worker("w")),
    (TaskState.RUNNING, Step.RELEASE): (running, lambda d, _: quit_all(d)),
    (TaskState.RUNNING, Step.LOSE): (lambda d: running(d, started=True), lambda d, _: d.die(*d.inbox)),
    (TaskState.RUNNING, Step.COMPLETE): (running, lambda d, _: settle(d)),
    (TaskState.RUNNING, Step.RETRY): (running, lambda d, _: settle(d, fails=True)),
    (TaskState.RUNNING, Step.BURY): (lambda d: running(d, attempts=1), lambda d, _: settle(d, fails=True)),
    (TaskState.SCHEDULED, Step.DUE): (scheduled, lambda d, _: quit_all_and_wait(d)),
    (TaskState.SCHEDULED, Step.CANCEL): (scheduled, lambda d, i: d.do(c.Cancel([i]))),
    (TaskState.DEAD, Step.REDRIVE): (dead, redrive),
    (TaskState.READY, Step.PURGE): (ready, lambda d, _: purge(d)),
    (TaskState.RUNNING, Step.PURGE): (running, lambda d, _: purge_and_quit_all(d)),
    (TaskState.SCHEDULED, Step.PURGE): (scheduled, lambda d, _: purge(d)),
    (TaskState.DEAD, Step.FORGET): (dead, lambda d, i: d.do(c.ForgetDead(None, [i]))),
}


def test_an_enqueued_task_has_the_rows_of_its_state() -> None:
    driver = Driver()

    task_id = ready(driver)

    assert places_of(driver, task_id) == MOVES.by_way[None, Step.ENQUEUE].writes == {READY}


def test_each_other_way_is_taken_here() -> None:
    assert LIVES.keys() | {(None, Step.ENQUEUE)} == TRANSITIONS.keys()


@pytest.mark.parametrize("way", LIVES, ids=str)
def test_a_step_deletes_and_writes_the_rows_that_its_mover_says(way: Way) -> None:
    begin, step = LIVES[way]
    driver = Driver()
    task_id = begin(driver)
    before = places_of(driver, task_id)

    step(driver, task_id)

    after, move = places_of(driver, task_id), MOVES.by_way[way]
    assert before == PLACES[way[0]]
    assert after == PLACES[TRANSITIONS[way]]
    assert (before - after, after - before) == (move.deletes, move.writes)
    assert move.deletes | move.writes <= {READY, LEASE, DUE, DEAD, ENDED}
