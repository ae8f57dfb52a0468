"""The virtual loop: waiting is free, order is fixed, and what can never end says so."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine

import pytest

from tq.testing.clock import ManualClock
from tq.testing.loop import Deadlock, Livelock, run_virtual


def test_a_year_of_waiting_takes_no_time() -> None:
    clock = ManualClock(wall_ms=0)

    async def main() -> float:
        await asyncio.sleep(365 * 86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    ended = run_virtual(main(), clock)

    assert ended == pytest.approx(365 * 86_400)
    assert clock.wall() == pytest.approx(365 * 86_400_000, abs=1)
    assert time.monotonic() - began < 5


def test_timers_run_in_the_order_of_their_time_and_see_it() -> None:
    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, round(loop.time(), 3)))

        await asyncio.gather(wait("c", 3), wait("a", 1), wait("b", 2.5))
        return seen

    assert run_virtual(main()) == [("a", 1.0), ("b", 2.5), ("c", 3.0)]


def test_a_timeout_comes_at_its_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(7)


def test_waiting_for_what_never_comes_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"no timer is set; waiting: Task-\d+ .*test_loop\.py"):
        run_virtual(main())


def test_turning_without_time_passing_is_a_livelock() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.Event().wait()

    with pytest.raises(Livelock, match=r"0\.000000 s; ready: .*again"):
        run_virtual(main())


def test_calling_soon_as_if_from_a_thread_is_calling_soon() -> None:
    async def main() -> None:
        called = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(called.set)
        await called.wait()

    run_virtual(main())


async def use_a_thread() -> None:
    await asyncio.to_thread(time.time)


async def use_a_socket() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours.fileno(), print)


@pytest.mark.parametrize(
    "use, text", [(use_a_thread, "has no threads"), (use_a_socket, "no real input or output")], ids=["thread", "socket"]
)
def test_threads_and_sockets_are_refused(use: Callable[[], Coroutine[None, None, None]], text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        run_virtual(use())


def test_what_main_leaves_running_is_cancelled() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        assert not task.done()

    run_virtual(main())

    assert ended == ["cancelled"]


def test_an_exception_that_nobody_handles_is_not_lost() -> None:
    def fail() -> None:
        raise KeyError("lost")

    async def main() -> str:
        asyncio.get_running_loop().call_soon(fail)
        await asyncio.sleep(1)
        return "done"

    with pytest.raises(ExceptionGroup) as unhandled:
        run_virtual(main())

    assert isinstance(unhandled.value.exceptions[0], KeyError)
