"""The tables of a connection: complete, and the same as the table of messages."""

from tq.protocol.messages import MESSAGES, Role, Type
from tq.protocol.states import NOTICES, PUSHED_TO, SENT_BY, TRANSITIONS, ConnectionState, Event


def test_every_message_is_sent_by_a_role_or_is_a_reply_or_a_push() -> None:
    sent = {Type.HELLO}.union(*SENT_BY.values())
    pushed = set().union(*PUSHED_TO.values())
    replies = {number for number, row in MESSAGES.items() if row.kind in {r.reply for r in MESSAGES.values()}}

    assert sent | pushed | replies | {Type.ERROR} == set(MESSAGES)
    assert not sent & (pushed | replies | {Type.ERROR})


def test_nobody_sends_a_second_hello() -> None:
    assert not any(Type.HELLO in SENT_BY[role] for role in Role)


def test_notices_are_what_has_no_reply() -> None:
    assert {Type.UNWAIT, Type.WINDOW, Type.STARTED, Type.RELEASE} == NOTICES


def test_a_connection_can_end_from_every_state_and_nothing_follows() -> None:
    assert all(TRANSITIONS[state, Event.END] is ConnectionState.CLOSED for state in ConnectionState)
    assert {event for state, event in TRANSITIONS if state is ConnectionState.CLOSED} == {Event.END}
