"""The words of the contract: what each durability says, and the awaitable that has ended."""

import asyncio

import pytest

from tq.store.base import DONE, Commit, Durability


@pytest.mark.parametrize("durability", list(Durability))
def test_each_durability_says_what_it_risks(durability: Durability) -> None:
    assert "lost" in durability.risk or "lose" in durability.risk
    assert "kill" in durability.risk or durability is Durability.SYNC


def test_what_is_done_can_be_awaited_often_and_never_suspends() -> None:
    async def main() -> list[Commit]:
        return [await DONE, await DONE]

    with pytest.raises(StopIteration) as end:
        main().send(None)

    assert end.value.value == [Commit.COMMITTED, Commit.COMMITTED]


def test_what_is_done_can_be_gathered_on_a_loop() -> None:
    async def main() -> list[Commit]:
        return await asyncio.gather(*(asyncio.ensure_future(done) for done in (DONE, DONE)))

    assert asyncio.run(main()) == [Commit.COMMITTED, Commit.COMMITTED]
