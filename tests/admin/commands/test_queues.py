"""Queues: listed, shown, paused, resumed and purged, on a real broker."""

import pytest

from tests.admin.commands.shop import Shop, fields, items
from tq.admin.answer import Facts, Listing
from tq.admin.commands.queues import pause, purge, queues, resume, show
from tq.admin.operator import Declined
from tq.core.errors import QueueNotFound
from tq.core.task import Task, TaskSpec


def test_no_queues_are_an_empty_list(shop: Shop) -> None:
    answer = queues(operator=shop.operator)

    assert answer.document == []
    (listing,) = answer.blocks
    assert isinstance(listing, Listing)
    assert listing.empty == "There are no queues yet."


def test_queues_are_listed_by_name_with_what_they_hold(shop: Shop) -> None:
    shop.enqueue(3)
    shop.enqueue(1, queue="bills")
    pause("bills", operator=shop.operator)

    answer = queues(operator=shop.operator)

    (listing,) = answer.blocks
    assert isinstance(listing, Listing)
    assert [row[:3] for row in listing.rows] == [("bills", "paused", 1), ("mail", "active", 3)]
    assert [(d["name"], d["ready"], d["paused"]) for d in items(answer)] == [("bills", 1, True), ("mail", 3, False)]


def test_more_queues_than_fit_a_frame_are_all_listed(shop: Shop) -> None:
    names = [f"{number:06}".ljust(128, "q") for number in range(6_000)]
    shop.client.enqueue_many(Task(TaskSpec("mail.send", name), b"") for name in names)

    answer = queues(operator=shop.operator)

    assert [d["name"] for d in items(answer)] == names


def test_a_queue_is_shown_with_the_names_that_nobody_serves(shop: Shop) -> None:
    shop.enqueue(2)

    answer = show("mail", operator=shop.operator)

    counts, totals, unserved = answer.blocks
    assert isinstance(counts, Facts)
    assert ("ready", 2) in counts.rows
    assert isinstance(totals, Facts)
    assert ("enqueued in all", 2) in totals.rows
    assert unserved == "No connected worker has a handler for: mail.send"


def test_a_queue_that_does_not_exist_is_an_error(shop: Shop) -> None:
    for command in (show, pause, resume):
        with pytest.raises(QueueNotFound, match="nowhere"):
            command("nowhere", operator=shop.operator)


def test_a_paused_queue_keeps_its_tasks_until_it_is_resumed(shop: Shop) -> None:
    shop.enqueue(2)

    paused = pause("mail", operator=shop.operator)
    shop.run()
    kept = show("mail", operator=shop.operator)
    resumed = resume("mail", operator=shop.operator)
    shop.run()

    assert paused.document == {"queue": "mail", "action": "pause", "tasks": 2}
    assert paused.blocks == ["Paused mail: 2 tasks wait."]
    assert fields(kept)["ready"] == 2
    assert resumed.document == {"queue": "mail", "action": "resume", "tasks": 2}
    assert fields(show("mail", operator=shop.operator))["ready"] == 0


def test_a_purge_asks_with_the_number_of_tasks_and_then_drops_them(shop: Shop) -> None:
    shop.enqueue(3)

    answer = purge("mail", operator=shop.operator)

    assert shop.questions == ["Drop the 3 ready and scheduled tasks of queue mail for good?"]
    assert answer.document == {"queue": "mail", "action": "purge", "tasks": 3}
    assert fields(show("mail", operator=shop.operator))["ready"] == 0


def test_a_purge_that_is_not_wanted_drops_nothing(shop: Shop) -> None:
    shop.enqueue(3)
    shop.answer = False

    with pytest.raises(Declined, match="queue mail was not purged"):
        purge("mail", operator=shop.operator)

    assert fields(show("mail", operator=shop.operator))["ready"] == 3


def test_a_purge_told_yes_does_not_ask(shop: Shop) -> None:
    shop.enqueue(1)

    purge("mail", yes=True, operator=shop.operator)

    assert shop.questions == []
