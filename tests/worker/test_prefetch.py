"""Prefetch: how many tasks to hold, from how long they take."""

import pytest

from tq.worker.prefetch import PREFETCH_MAX, Prefetch


@pytest.mark.parametrize(
    ("concurrency", "task_s", "window"),
    [
        (10, 1.0, 10),  # 50 ms of work is half a task
        (10, 0.1, 15),
        (1, 0.01, 6),
        (100, 0.001, 100 + 4_000),
        (100, 0.0, 100 + PREFETCH_MAX),
        (1, 60.0, 1),
    ],
)
def test_a_worker_holds_what_runs_and_fifty_milliseconds_of_work(concurrency: int, task_s: float, window: int) -> None:
    prefetch = Prefetch(concurrency, None)

    for _ in range(100):
        prefetch.finished(10, 10 * task_s)

    assert prefetch.window == window


def test_before_anything_is_known_each_slot_has_one_task_ahead() -> None:
    assert Prefetch(8, None).window == 16


def test_one_odd_task_moves_the_estimate_little_and_a_crowd_moves_it_by_half() -> None:
    one, crowd = Prefetch(100, None), Prefetch(100, None)
    for prefetch in (one, crowd):
        prefetch.finished(1, 0.01)

    one.finished(1, 0.11)
    crowd.finished(50, 50 * 0.11)

    assert one.window == pytest.approx(100 + 5 / 0.02, abs=1)
    assert crowd.window == pytest.approx(100 + 5 / 0.06, abs=1)


def test_a_prefetch_that_the_user_set_stays() -> None:
    prefetch = Prefetch(10, 3)

    prefetch.finished(100, 0.001)
    prefetch.held_up(5.0)

    assert prefetch.window == 13


def test_with_prefetch_0_only_what_can_start_at_once_is_held() -> None:
    assert Prefetch(10, 0).window == 10


def test_when_tasks_are_stuck_nothing_is_held_ahead_until_one_ends() -> None:
    prefetch = Prefetch(10, None)
    prefetch.finished(1, 0.001)

    prefetch.held_up(0.1)
    stuck = prefetch.window
    prefetch.finished(1, 0.1)

    assert stuck == 10
    assert prefetch.window == 15


def test_the_broker_hears_of_the_window_at_first_and_when_it_has_moved_by_a_quarter() -> None:
    prefetch = Prefetch(100, None)
    prefetch.finished(1, 0.05)

    news = [prefetch.news(), prefetch.news()]
    prefetch.finished(1, 0.04)
    news.append(prefetch.news())
    prefetch.finished(20, 20 * 0.01)
    news.append(prefetch.news())

    assert news == [200, None, None, 100 + int(5 / 0.0295)]


def test_a_window_of_nothing_is_news_once() -> None:
    prefetch = Prefetch(4, None)

    assert [prefetch.news(), prefetch.news(0), prefetch.news(0)] == [8, 0, None]


def test_a_new_connection_hears_of_the_window_whatever_the_last_one_heard() -> None:
    prefetch = Prefetch(4, None)
    prefetch.news()

    prefetch.told = None

    assert prefetch.news() == 8
