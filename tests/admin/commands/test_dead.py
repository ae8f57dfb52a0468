"""Dead letters: listed, redriven and purged, on a real broker."""

import pytest

from tests.admin.commands.shop import Shop, fields, items
from tq.admin.answer import Listing
from tq.admin.commands.dead import list_dead, purge, redrive
from tq.admin.commands.queues import show
from tq.admin.operator import Declined
from tq.core.errors import ConfigError
from tq.core.ids import TaskId, format_id


def buried(shop: Shop, count: int) -> list[TaskId]:
    ids = shop.enqueue(count, name="mail.fail")
    shop.run()
    return ids


def left(shop: Shop) -> int:
    return len(items(list_dead(operator=shop.operator)))


def test_dead_letters_are_listed_with_reason_and_failure_in_a_line(shop: Shop) -> None:
    (task_id,) = buried(shop, 1)

    answer = list_dead(operator=shop.operator)

    (listing,) = answer.blocks
    assert isinstance(listing, Listing)
    ((identifier, name, queue, reason, attempts, losses, _, failure),) = listing.rows
    assert (identifier, name, queue) == (format_id(task_id), "mail.fail", "mail")
    assert (reason, attempts, losses) == ("attempts", "1/1", 0)
    assert failure == "ValueError: no mail 0"


def test_no_dead_letters_are_an_empty_list(shop: Shop) -> None:
    answer = list_dead(operator=shop.operator)

    assert answer.document == []


def test_named_dead_letters_are_redriven(shop: Shop) -> None:
    first, _ = buried(shop, 2)

    answer = redrive(first, operator=shop.operator)

    assert answer.document == {"action": "redrive", "tasks": 1}
    assert left(shop) == 1


def test_the_dead_letters_of_a_queue_are_redriven(shop: Shop) -> None:
    buried(shop, 3)

    answer = redrive(queue="mail", operator=shop.operator)

    assert answer.blocks == ["Redrove 3 tasks."]
    assert left(shop) == 0
    assert fields(show("mail", operator=shop.operator))["ready"] == 3


def test_a_purge_of_a_queue_asks_with_the_number(shop: Shop) -> None:
    buried(shop, 2)

    answer = purge(queue="mail", operator=shop.operator)

    assert shop.questions == ["Forget 2 dead letters of queue mail for good?"]
    assert answer.document == {"action": "purge", "tasks": 2}
    assert left(shop) == 0


def test_a_purge_of_named_ones_asks_with_their_number(shop: Shop) -> None:
    first, _ = buried(shop, 2)

    purge(first, operator=shop.operator)

    assert shop.questions == ["Forget 1 dead letter for good?"]
    assert left(shop) == 1


def test_a_purge_that_is_not_wanted_forgets_nothing(shop: Shop) -> None:
    buried(shop, 1)
    shop.answer = False

    with pytest.raises(Declined, match="no dead letter was purged"):
        purge(queue="mail", operator=shop.operator)

    assert left(shop) == 1


def test_a_purge_told_yes_does_not_ask(shop: Shop) -> None:
    buried(shop, 1)

    purge(queue="mail", yes=True, operator=shop.operator)

    assert shop.questions == []


def test_what_to_act_on_is_named_in_one_way(shop: Shop) -> None:
    for command in (redrive, purge):
        with pytest.raises(ConfigError, match=r"at least one task by its id, or .* by --queue"):
            command(operator=shop.operator)
        with pytest.raises(ConfigError, match="not both"):
            command(TaskId(b"\x00" * 16), queue="mail", operator=shop.operator)
