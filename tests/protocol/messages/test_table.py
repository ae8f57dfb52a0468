"""The table of messages: complete, one number a message, replies that exist."""

import pytest

from tq.protocol.messages import MESSAGES, TYPE_OF, Error, Row, Type


def test_every_number_has_its_message_and_every_message_its_number() -> None:
    assert set(MESSAGES) == set(Type)
    assert {TYPE_OF[row.kind]: row.kind for row in MESSAGES.values()} == {n: row.kind for n, row in MESSAGES.items()}


@pytest.mark.parametrize("row", MESSAGES.values(), ids=lambda row: row.kind.__name__)
def test_only_what_a_peer_sends_is_answered_and_by_what_the_broker_sends(row: Row) -> None:
    if row.reply is not None:
        assert row.sent_by
        assert MESSAGES[TYPE_OF[row.reply]].sent_by is None
        assert row.reply is not Error


@pytest.mark.parametrize("row", MESSAGES.values(), ids=lambda row: row.kind.__name__)
def test_messages_are_values_to_which_a_later_version_may_add_fields(row: Row) -> None:
    config = row.kind.__struct_config__

    assert config.frozen
    assert not config.forbid_unknown_fields
