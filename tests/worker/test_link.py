"""The link: one connection after the other, on a scripted broker."""

import asyncio
import logging

import pytest

from tests.worker.rig import Gate, Rig, running
from tests.worker.scripted import record
from tq.core.errors import GoingAway, InvalidArgument, Overloaded, SessionUnknown, UnsupportedVersion
from tq.protocol.messages import (
    MAGIC,
    VERSIONS,
    Deliver,
    GoingAway as GoingAwayPush,
    Goodbye,
    Hello,
    Ping,
    QueueWeight,
    Role,
    Settle,
    Subscribe,
    Window,
)


async def quick() -> int:
    return 1


async def test_a_worker_says_who_it_is_and_what_it_serves() -> None:
    async with running(quick=quick, queues=[("mail", 3), ("default", 1)]) as rig:
        await rig.turns()

        hello, subscribe, window = rig.broker.said
        assert isinstance(hello, Hello)
        assert (hello.magic, hello.version, hello.role) == (MAGIC, VERSIONS.first, Role.WORKER)
        assert (hello.session, hello.secret) == rig.identity.credentials
        assert hello.worker is not None
        assert hello.worker.tasks == ["quick"]
        assert hello.agent.startswith("tq-worker/")
        assert subscribe == Subscribe([QueueWeight("mail", 3), QueueWeight("default", 1)])
        assert isinstance(window, Window)


async def test_a_reconnected_worker_is_the_same_one() -> None:
    async with running(quick=quick) as rig:
        rig.broker.cut()
        await rig.broker.until(lambda: rig.broker.connections == 2)

        first, second = rig.broker.of(Hello)
        assert (first.session, first.secret) == (second.session, second.secret)


async def test_a_worker_that_the_broker_forgot_registers_anew_and_drops_what_it_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    async with running(quick=quick, gate=gate.__call__) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, record("quick"), record("gate"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        rig.broker.holds.clear()
        rig.broker.said.clear()

        rig.broker.refuses[Hello] = SessionUnknown("who?")
        rig.broker.cut()
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)
        await gate.until(lambda gate: gate.cancelled == 1)
        await rig.turns()

        old, new = rig.broker.of(Hello)
        assert new.session != old.session
        assert new.secret != old.secret
        assert (len(old.held), new.held) == (1, [])
        assert rig.dispatcher.holdings.is_empty
        assert not rig.broker.failed


async def test_a_session_that_ends_under_an_open_connection_costs_no_outcome_unsaid() -> None:
    async with running(quick=quick) as rig:
        rig.broker.refuses[Settle] = SessionUnknown("your leases are gone")
        rig.broker.deliver(5, record("quick"))
        await rig.broker.until(lambda: len(rig.broker.of(Settle)) == 2)
        await rig.turns()

        first, second = rig.broker.of(Settle)
        assert first == second
        assert rig.dispatcher.holdings.is_empty


async def test_an_absent_broker_is_tried_until_it_comes_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rig = Rig({"quick": quick})
    rig.broker.is_absent = True
    await rig.dispatcher.start(rig.link)
    tries = 0
    connect = rig.broker.connect

    async def counted(factory: object) -> asyncio.Transport:
        nonlocal tries
        tries += 1
        rig.broker.is_absent = tries < 4
        return await connect(factory)  # type: ignore[arg-type]

    rig.broker.connect = counted  # type: ignore[method-assign]
    connecting = asyncio.create_task(rig.link.run())
    await rig.broker.until(lambda: rig.link.is_open)
    connecting.cancel()
    await asyncio.wait([connecting])

    assert tries == 4
    assert [entry.levelname for entry in caplog.records] == ["WARNING", "INFO"]
    assert "nobody is there" in caplog.text


async def test_a_broker_that_refuses_the_queues_ends_the_worker() -> None:
    rig = Rig({"quick": quick})
    rig.broker.refuses[Subscribe] = InvalidArgument("a queue has no such name")
    await rig.dispatcher.start(rig.link)

    with pytest.raises(InvalidArgument, match="no such name"):
        await asyncio.wait_for(rig.link.run(), 10)


@pytest.mark.parametrize("error", [Overloaded("later"), GoingAway("bye")])
async def test_one_that_may_take_them_later_is_tried_again(error: Overloaded | GoingAway) -> None:
    rig = Rig({"quick": quick})
    rig.broker.refuses[Subscribe] = error
    await rig.dispatcher.start(rig.link)
    connecting = asyncio.create_task(rig.link.run())

    await rig.broker.until(lambda: len(rig.broker.of(Subscribe)) == 2)
    connecting.cancel()
    await asyncio.wait([connecting])

    assert rig.broker.connections == 2


async def test_a_broker_of_another_version_is_tried_again_for_it_may_be_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig({"quick": quick})
    rig.broker.refuses[Hello] = UnsupportedVersion("we speak 9")
    await rig.dispatcher.start(rig.link)
    connecting = asyncio.create_task(rig.link.run())

    await rig.broker.until(lambda: rig.link.is_open)
    connecting.cancel()
    await asyncio.wait([connecting])

    assert "we speak 9" in caplog.text


async def test_a_broker_about_to_stop_gets_what_is_finished_until_it_does() -> None:
    gate = Gate()
    async with running(gate=gate.__call__) as rig:
        rig.broker.deliver(5, record("gate"))
        await rig.turns()

        rig.broker.push(GoingAwayPush("restart"))
        await rig.turns()
        gate.open()
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        assert rig.broker.connections == 1


@pytest.mark.parametrize("name", ["quick", "strange"])
async def test_a_delivery_may_be_the_last_word_of_a_connection(name: str) -> None:
    async with running(quick=quick) as rig:
        delivery = Deliver(5, alone=True, records=[record(name)])
        rig.broker.push_and_dismiss(delivery, GoingAway("at once"))
        await rig.broker.until(lambda: rig.broker.connections == 2)

        assert rig.link.is_open


async def test_a_silent_connection_is_asked_whether_it_is_there() -> None:
    async with running(quick=quick) as rig:
        await rig.turns()

        rig.tick(9.0)
        await rig.turns()
        early = rig.broker.of(Ping)
        rig.tick(2.0)
        await rig.broker.until(lambda: len(rig.broker.of(Ping)) == 1)
        await rig.turns()
        rig.tick(1.0)

        assert early == []
        assert rig.broker.connections == 1


async def test_one_that_does_not_answer_is_given_up_and_its_outcomes_go_to_the_next() -> None:
    async with running(quick=quick) as rig:
        rig.broker.holds.add(Settle)
        rig.broker.deliver(5, record("quick"))
        await rig.broker.until(lambda: (5, 0) in rig.broker.done)

        rig.tick(29.0)
        await rig.turns()
        before = rig.broker.connections
        rig.broker.holds.clear()
        rig.tick(2.0)
        await rig.broker.until(lambda: len(rig.broker.of(Settle)) == 2)

        assert before == 1
        assert rig.broker.connections == 2


async def test_the_log_says_of_each_connection_that_no_welcome_comes(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig({"quick": quick})
    rig.broker.holds.add(Hello)
    await rig.dispatcher.start(rig.link)
    connecting = asyncio.create_task(rig.link.run())
    told = []
    for tries in (1, 2):
        await rig.broker.until(lambda tries=tries: rig.broker.connections == tries)  # type: ignore[misc]
        for seconds in (4.0, 2.0, 2.0, 23.0):
            rig.tick(seconds)
            told.append(caplog.text.count("waiting for the broker's welcome since 5 s"))
    connecting.cancel()
    await asyncio.wait([connecting])

    assert told == [0, 1, 1, 1, 1, 2, 2, 2]
    assert caplog.text.count("trying again until it works") == 1


async def test_one_that_never_says_welcome_is_given_up() -> None:
    rig = Rig({"quick": quick})
    rig.broker.holds.add(Hello)
    await rig.dispatcher.start(rig.link)
    connecting = asyncio.create_task(rig.link.run())
    await rig.broker.until(lambda: rig.broker.connections == 1)

    rig.tick(31.0)
    await rig.broker.until(lambda: rig.broker.connections == 2)
    connecting.cancel()
    await asyncio.wait([connecting])

    assert not rig.link.is_open


async def test_a_question_is_answered_also_by_the_end_of_the_connection() -> None:
    async with running(quick=quick) as rig:
        answered = await rig.link.ask(Ping())
        rig.broker.holds.add(Ping)
        asking = asyncio.create_task(rig.link.ask(Ping()))
        await rig.broker.until(lambda: len(rig.broker.of(Ping)) == 2)
        rig.broker.cut()
        cut_off = await asyncio.wait_for(asking, 10)
        rig.broker.is_absent = True
        closed = await rig.link.ask(Ping())

    assert (answered, cut_off, closed) == (True, False, False)


@pytest.mark.parametrize("answers", [True, False])
async def test_who_said_goodbye_expects_the_end_of_the_connection_and_does_not_come_back(
    answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(quick=quick) as rig:
        if not answers:
            rig.broker.holds.add(Goodbye)
        leaving = asyncio.create_task(rig.link.leave())
        await rig.broker.until(lambda: bool(rig.broker.of(Goodbye)))

        rig.broker.cut()
        await asyncio.wait_for(leaving, 10)
        await rig.turns()

        assert rig.connecting.done()
        assert rig.broker.connections == 1
    assert "trying again" not in caplog.text
