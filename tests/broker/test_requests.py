"""The table of requests against the table of messages."""

from tq.broker.requests import ANSWERS
from tq.protocol.messages import MESSAGES


def test_every_message_that_a_peer_may_send_is_answered_by_one_function() -> None:
    sent_by_peers = {number for number, row in MESSAGES.items() if row.sent_by is not None}

    assert ANSWERS.keys() == sent_by_peers
