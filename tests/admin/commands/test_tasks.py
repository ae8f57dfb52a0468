"""Tasks: listed, shown, cancelled and retried, on a real broker."""

import pytest

from tests.admin.commands.shop import Shop, fields, items
from tq.admin.answer import EXIT_OK, EXIT_REFUSED, Facts, Listing
from tq.admin.commands.tasks import cancel, retry, show, some, tasks
from tq.core.errors import ConfigError, TaskNotFound, WrongState
from tq.core.ids import TaskId, compose, format_id
from tq.core.times import Timestamp

UNKNOWN = TaskId(compose(Timestamp(1), 1))


def test_tasks_are_listed_in_the_order_of_their_hand_out(shop: Shop) -> None:
    ids = shop.enqueue(3)

    answer = tasks(operator=shop.operator)

    (listing,) = answer.blocks
    assert isinstance(listing, Listing)
    assert [(row[0], row[1], row[3], row[5]) for row in listing.rows] == [
        (format_id(each), "mail.send", "ready", "0/1") for each in ids
    ]
    assert [task["id"] for task in items(answer)] == [format_id(each) for each in ids]


def test_a_listing_goes_over_pages_and_stops_at_its_limit(shop: Shop) -> None:
    shop.enqueue(1_500)

    some_of_them = tasks(limit=1_200, operator=shop.operator)
    all_of_them = tasks(limit=9_999, operator=shop.operator)
    none_of_them = tasks(limit=0, operator=shop.operator)

    assert len(items(some_of_them)) == 1_200
    assert len(items(all_of_them)) == 1_500
    assert none_of_them.document == []


def test_a_listing_is_of_one_queue_and_one_state_if_asked(shop: Shop) -> None:
    shop.enqueue(1)
    shop.enqueue(2, queue="bills")

    assert len(items(tasks(queue="bills", operator=shop.operator))) == 2
    assert tasks(state="running", operator=shop.operator).document == []


def test_a_limit_below_nothing_is_refused(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="--limit must be 0 or more; got -1"):
        tasks(limit=-1, operator=shop.operator)


def test_a_task_is_shown_without_its_result(shop: Shop) -> None:
    (task_id,) = shop.enqueue()
    shop.run()

    answer = show(task_id, operator=shop.operator)

    (facts,) = answer.blocks
    assert isinstance(facts, Facts)
    assert ("state", "completed") in facts.rows
    assert "private" not in repr(answer)


def test_a_dead_task_is_shown_with_its_traceback(shop: Shop) -> None:
    (task_id,) = shop.enqueue(name="mail.fail")
    shop.run()

    answer = show(task_id, operator=shop.operator)

    facts, traceback = answer.blocks
    assert isinstance(facts, Facts)
    assert ("state", "dead") in facts.rows
    assert ("reason", "attempts") in facts.rows
    assert ("attempts", "1/1") in facts.rows
    assert isinstance(traceback, str)
    assert "Traceback" in traceback
    assert "ValueError: no" in traceback


def test_an_unknown_task_is_an_error(shop: Shop) -> None:
    with pytest.raises(TaskNotFound, match=format_id(UNKNOWN)):
        show(UNKNOWN, operator=shop.operator)


def test_a_cancel_tells_what_was_withdrawn_and_what_was_not(shop: Shop) -> None:
    done, waiting = shop.enqueue()[0], None
    shop.run()
    (waiting,) = shop.enqueue()

    answer = cancel(waiting, done, UNKNOWN, operator=shop.operator)

    assert answer.exit_code == EXIT_REFUSED
    assert fields(answer)["cancelled"] == [format_id(waiting)]
    refused = fields(answer)["refused"]
    assert isinstance(refused, list)
    assert {(each["id"], each["code"]) for each in refused} == {
        (format_id(done), "wrong_state"),
        (format_id(UNKNOWN), "task_not_found"),
    }
    assert str(answer.blocks[0]).startswith("Cancelled 1 task.\nNot cancelled: ")


def test_a_cancel_of_all_that_was_named_is_done(shop: Shop) -> None:
    (task_id,) = shop.enqueue()

    answer = cancel(task_id, task_id, operator=shop.operator)

    assert answer.exit_code == EXIT_OK
    assert answer.document == {"cancelled": [format_id(task_id)], "refused": []}


def test_a_retry_puts_a_dead_task_back(shop: Shop) -> None:
    (task_id,) = shop.enqueue(name="mail.fail")
    shop.run()

    answer = retry(task_id, operator=shop.operator)

    assert answer.document == {"action": "redrive", "tasks": 1}
    assert answer.blocks == ["Redrove 1 task."]
    shown = fields(show(task_id, operator=shop.operator))
    assert (shown["state"], shown["generation"], shown["attempts"]) == ("ready", 2, 0)


def test_a_retry_of_a_task_that_is_not_dead_is_refused(shop: Shop) -> None:
    (task_id,) = shop.enqueue()

    with pytest.raises(WrongState):
        retry(task_id, operator=shop.operator)


def test_ids_are_needed_and_count_once() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        some([])

    assert some([UNKNOWN, UNKNOWN]) == [UNKNOWN]
