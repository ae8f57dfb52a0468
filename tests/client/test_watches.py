"""Who waits for what: asked for once, told once."""

import pytest
from hypothesis import given, strategies as st

from tq.client.watches import Watch, Watches
from tq.core.errors import ConnectionLost, Overloaded
from tq.core.lifecycle import TaskState
from tq.core.outcome import TaskResult
from tq.core.times import Timestamp


def ended(task_id: bytes) -> TaskResult:
    return TaskResult(task_id, TaskState.COMPLETED, Timestamp(0))


def test_a_task_that_two_wait_for_is_asked_for_once_and_told_to_both() -> None:
    watches, first, second = Watches(), Watch([b"a", b"b"]), Watch([b"b", b"c"])

    asked = [watches.add(first), watches.add(second)]
    watches.ended([ended(b"b")])

    assert asked == [[b"a", b"b"], [b"c"]]
    assert [watch.take() for watch in (first, second)] == [[ended(b"b")], [ended(b"b")]]
    assert [list(watch.missing) for watch in (first, second)] == [[b"a"], [b"c"]]


def test_what_the_last_one_leaves_is_idle() -> None:
    watches, first, second = Watches(), Watch([b"a", b"b"]), Watch([b"b"])
    watches.add(first)
    watches.add(second)

    assert watches.remove(first) == [b"a"]
    assert watches.remove(second) == [b"b"]
    assert watches.remove(second) == []
    assert len(watches) == 0


def test_a_result_that_nobody_waits_for_any_more_is_dropped() -> None:
    watches, watch = Watches(), Watch([b"a"])
    watches.add(watch)
    watches.remove(watch)

    watches.ended([ended(b"a")])

    assert not watch.ended


def test_unknown_tasks_are_news_when_they_are_the_last() -> None:
    watches, watch = Watches(), Watch([b"a", b"b"])
    watches.add(watch)

    watches.unknown([b"a"])
    before = watch.has_news
    watches.unknown([b"b"])

    assert not before
    assert watch.has_news
    assert watch.take() == []
    assert watch.unknown == [b"a", b"b"]


def test_results_are_taken_before_an_error_is_raised() -> None:
    watches, watch = Watches(), Watch([b"a", b"b"])
    watches.add(watch)

    watches.ended([ended(b"a")])
    watches.all_failed(ConnectionLost("gone"))

    assert watch.take() == [ended(b"a")]
    with pytest.raises(ConnectionLost, match="gone"):
        watch.take()


def test_each_watch_has_an_error_of_its_own() -> None:
    watches, first, second, other = Watches(), Watch([b"a"]), Watch([b"a"]), Watch([b"b"])
    for watch in (first, second, other):
        watches.add(watch)

    watches.failed([b"a"], Overloaded("too many"))

    assert isinstance(first.error, Overloaded)
    assert first.error is not second.error
    assert other.error is None


def test_whoever_sleeps_on_a_watch_is_woken_by_all_news() -> None:
    watches, watch, woken = Watches(), Watch([b"a", b"b", b"c"]), []
    watch.wake = lambda: woken.append(len(watch.missing))
    watches.add(watch)

    watches.ended([ended(b"a")])
    watches.unknown([b"b"])
    watches.all_failed(ConnectionLost("gone"))
    watches.all_failed(ConnectionLost("gone"))

    assert woken == [2, 1, 1]


@given(
    watched=st.lists(st.sets(st.integers(0, 5)), max_size=5),
    steps=st.lists(st.tuples(st.sampled_from(["ended", "unknown", "remove"]), st.integers(0, 5))),
)
def test_every_watch_hears_of_each_of_its_tasks_at_most_once(
    watched: list[set[int]], steps: list[tuple[str, int]]
) -> None:
    watches = Watches()
    waiting = [Watch(bytes([number]) for number in sorted(numbers)) for numbers in watched]
    for watch in waiting:
        watches.add(watch)

    for step, number in steps:
        match step:
            case "ended":
                watches.ended([ended(bytes([number]))])
            case "unknown":
                watches.unknown([bytes([number])])
            case _:
                if number < len(waiting):
                    watches.remove(waiting[number])

    for watch, numbers in zip(waiting, watched, strict=True):
        heard = [result.id for result in watch.ended] + watch.unknown
        assert sorted([*heard, *watch.missing]) == sorted(bytes([number]) for number in numbers)
