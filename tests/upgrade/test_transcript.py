"""A conversation recorded from an older broker goes the same way with today's: peers of that version still work."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from tests.broker.peers import Bench
from tests.upgrade.transcript import GOLDEN, Stage, cut, messages_in
from tq.protocol.messages import MESSAGES, TYPE_OF, Cancelled, Error, RefusedCancel
from tq.store.memory import MemoryStore

STEPS: list[list[Any]] = json.loads(GOLDEN.read_text())


async def replayed() -> list[list[Any]]:
    """Send today's broker what was sent then, and return what each peer gets, in the same form."""
    bench = await Bench(MemoryStore()).start()
    stage = Stage(bench)
    steps: list[list[Any]] = []
    for who, verb, said in STEPS:
        if verb == "get":
            continue
        steps.append([who, verb, said])
        if verb == "pass":
            await stage.pass_time(said)
        else:
            await stage.play(who, bytes.fromhex("".join(said)))
        steps += [[other, "get", cut(data)] for other, data in stage.heard().items()]
    await bench.service.stop()
    return steps


@pytest.fixture(scope="module")
def today() -> list[list[Any]]:
    return asyncio.run(replayed())


def kinds(steps: list[list[Any]]) -> list[tuple[str, list[str]]]:
    return [
        (who, [type(message).__name__ for _, message in messages_in(said)])
        for who, verb, said in steps
        if verb == "get"
    ]


def test_each_peer_gets_the_same_kinds_of_messages_in_the_same_order(today: list[list[Any]]) -> None:
    assert kinds(today) == kinds(STEPS)


def test_they_say_the_same(today: list[list[Any]]) -> None:
    for then, now in zip(STEPS, today, strict=True):
        if then[1] == "get":
            assert said(now) == said(then)


def said(step: list[Any]) -> list[tuple[int, msgspec.Struct]]:
    """Return what a step says, without the texts for people, which may be put better."""
    return [(correlation, without_prose(message)) for correlation, message in messages_in(step[2])]


def without_prose(message: msgspec.Struct) -> msgspec.Struct:
    match message:
        case Error():
            return msgspec.structs.replace(message, text="")
        case Cancelled(refused):
            return Cancelled([RefusedCancel(each.id, each.code, "") for each in refused])
        case _:
            return message


def test_the_conversation_leaves_hardly_a_message_out() -> None:
    spoken = {TYPE_OF[type(message)] for _, verb, said in STEPS if verb != "pass" for _, message in messages_in(said)}

    left_out = {kind.name for kind in MESSAGES if kind not in spoken}

    # A broker says goodbye when it stops, takes leases back after a silence, and its figures change by themselves.
    assert left_out == {"GOING_AWAY", "REVOKE", "GET_STATS", "STATS"}
