"""The process pool: what happens in a child stays there, and a child that ends is replaced."""

import asyncio
import errno
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.worker.pools.app_under_test import SAY_CLOSED, app
from tests.worker.pools.ends import Ends, running
from tq.core.errors import ConfigError
from tq.worker.assignment import Assignment, Failed, Outcome, Stop
from tq.worker.executor import Executor
from tq.worker.pools.processes import ProcessPool, Upbringing

pytestmark = pytest.mark.acceptance

APP = "tests.worker.pools.app_under_test:app"


class Pool:
    """A started pool and what it reports."""

    def __init__(self, concurrency: int, oom_kills: Callable[[], int] | None = None, **limits: int) -> None:
        self.executor = Executor(app.registry, "w")
        upbringing = Upbringing(APP, **limits)  # type: ignore[arg-type]
        self.pool = ProcessPool(self.executor, concurrency, "w", upbringing, oom_kills)
        self.ends = Ends()

    def run(self, name: str, *args: object, **spec: object) -> Assignment:
        work = running(self.executor, name, *args, **spec)
        self.pool.run(work)
        return work

    async def result(self, name: str, *args: object, **spec: object) -> object:
        outcome = await self.outcome(name, *args, **spec)
        assert isinstance(outcome, bytes), outcome
        return msgspec.msgpack.decode(outcome)

    async def failure(self, name: str, *args: object) -> Failed:
        outcome = await self.outcome(name, *args)
        assert isinstance(outcome, Failed)
        return outcome

    async def outcome(self, name: str, *args: object, **spec: object) -> Outcome:
        """Run it once there is a seat, again if it comes back: what a dispatcher and a broker do."""
        while True:
            await self.ends.until(lambda: self.pool.seats > 0)
            work = self.run(name, *args, **spec)
            await self.ends.until(lambda work=work: work in self.ends.returns or self.ends.has(work))  # type: ignore[misc]
            if work not in self.ends.returns:
                return await self.ends.of(work)

    def stop(self, work: Assignment, why: Stop) -> None:
        work.stop = why
        assert self.pool.interrupt(work) > 0


@asynccontextmanager
async def pool(concurrency: int = 1, oom_kills: Callable[[], int] | None = None, **limits: int) -> AsyncIterator[Pool]:
    made = Pool(concurrency, oom_kills, **limits)
    await made.pool.start(made.ends)
    try:
        yield made
    finally:
        await made.pool.stop()


async def said(path: Path, number: int) -> list[str]:
    """Wait for the *number*-th thing a handler says in *path*; return all."""
    deadline = time.monotonic() + 20
    while len(lines := _lines(path)) < number:
        assert time.monotonic() < deadline, f"the handler has said only {lines}"
        await asyncio.sleep(0.01)
    return lines


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_handlers_run_in_the_main_thread_of_another_process() -> None:
    async with pool() as it:
        assert await it.result("pid") != os.getpid()
        assert await it.result("context", attempts=2) == ["context", 3, "w", True]


async def test_plain_and_asynchronous_handlers_both_run_one_after_the_other_in_one_child() -> None:
    async with pool() as it:
        assert await it.result("double", 4) == 8
        assert await it.result("double_later", 5) == 10
        assert await it.result("pid") == await it.result("pid")


async def test_tasks_at_the_same_time_have_a_child_each(tmp_path: Path) -> None:
    async with pool(2) as it:
        works = [it.run("sleep", str(tmp_path / "said")) for _ in range(2)]

        lines = await said(tmp_path / "said", 2)
        for work in works:
            it.stop(work, Stop.LEAVING)
        for work in works:
            await it.ends.of(work)

        assert len(set(lines)) == 2


@pytest.mark.parametrize(
    ("name", "argument", "how"),
    [("exit", 3, "exit code 3"), ("exit", 0, "exit code 0"), ("crash", signal.SIGSEGV, "signal SIGSEGV")],
)
async def test_a_child_that_dies_fails_the_attempt_it_ran_and_no_other(name: str, argument: int, how: str) -> None:
    async with pool() as it:
        before = await it.result("pid")

        failed = await it.failure(name, argument)
        after = await it.result("pid")

        assert failed.failure.type == "WorkerProcessDied"
        assert how in failed.failure.message
        assert str(before) in failed.failure.message
        assert (failed.reject, failed.retry_after_ms, failed.by_handler) == (False, None, False)
        assert after != before


async def test_the_last_words_of_a_child_go_with_the_failure_and_to_our_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with pool() as it:
        await it.result("complain", "of another task\n", 0)

        failed = await it.failure("complain", "out of luck\nbad cookie", signal.SIGKILL)

        said = "The last that the process wrote to its standard error:\nout of luck\nbad cookie"
        assert failed.failure.traceback == said
        assert "signal SIGKILL" in failed.failure.message
        assert "memory" not in failed.failure.message
    assert capfd.readouterr().err == "of another task\nout of luck\nbad cookie"


async def test_the_stack_of_a_crash_in_native_code_is_among_the_last_words() -> None:
    async with pool() as it:
        failed = await it.failure("segfault")

    assert "Fatal Python error: Segmentation fault" in failed.failure.traceback
    assert "in segfault" in failed.failure.traceback


async def test_a_child_killed_for_want_of_memory_is_told_from_one_that_was_just_killed(tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    async with pool(1, lambda: len(_lines(counted))) as it:
        killed = await it.failure("crash", signal.SIGKILL)
        out_of_memory = await it.failure("be_counted", str(counted), signal.SIGKILL)

    assert killed.failure.message.endswith("ended: signal SIGKILL")
    assert out_of_memory.failure.message.endswith("ended: signal SIGKILL, killed by the kernel, out of memory")


async def test_what_a_task_has_started_may_complain_after_its_child_has_ended(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with pool() as it:
        await it.failure("leave_a_program", "still here")
        await it.ends.until(lambda: it.pool.seats > 0)
        await it.result("double", 2)

        deadline = time.monotonic() + 20
        heard = ""
        while "still here" not in heard and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            heard += capfd.readouterr().err

    assert "still here" in heard


async def test_a_child_killed_while_it_was_idle_harms_no_task() -> None:
    async with pool() as it:
        before = await it.result("pid")
        assert isinstance(before, int)

        os.kill(before, signal.SIGKILL)
        after = await it.result("pid")  # it may well be given to the dead child first, and come back

        assert after != before
        assert all(isinstance(outcome, bytes) for _, outcome in it.ends.outcomes)


async def test_a_handler_that_exits_politely_does_not_even_cost_the_child() -> None:
    async with pool() as it:
        before = await it.result("pid")

        failed = await it.failure("leave")

        assert failed.failure.type == "SystemExit"
        assert await it.result("pid") == before


@pytest.mark.parametrize("name", ["sleep", "wait"])
async def test_a_handler_is_interrupted_where_it_stands_and_its_child_lives_on(name: str, tmp_path: Path) -> None:
    async with pool() as it:
        before = await it.result("pid")
        work = it.run(name, str(tmp_path / "said"))
        await said(tmp_path / "said", 1)

        it.stop(work, Stop.TIMEOUT)
        outcome = await it.ends.of(work)

        assert isinstance(outcome, Failed)
        assert outcome.failure.type == "TaskTimeout"
        assert f"in {name}" in outcome.failure.traceback
        assert name != "sleep" or len(await said(tmp_path / "said", 2)) == 2
        assert await it.result("pid") == before


@pytest.mark.parametrize("name", ["tidy", "tidy_later"])
async def test_a_handler_is_reminded_where_it_stands_and_may_go_on(name: str, tmp_path: Path) -> None:
    async with pool() as it:
        before = await it.result("pid")
        work = it.run(name, str(tmp_path / "said"))
        await said(tmp_path / "said", 1)
        await it.ends.until(lambda: work in it.ends.has_begun)

        assert it.pool.remind(work)

        assert await it.ends.of(work) == msgspec.msgpack.encode("in order")
        assert await it.result("pid") == before


async def test_a_reminder_that_a_handler_does_not_catch_fails_the_attempt(tmp_path: Path) -> None:
    async with pool() as it:
        work = it.run("sleep", str(tmp_path / "said"))
        await said(tmp_path / "said", 1)
        await it.ends.until(lambda: work in it.ends.has_begun)

        assert it.pool.remind(work)
        outcome = await it.ends.of(work)

        assert isinstance(outcome, Failed)
        assert (outcome.failure.type, outcome.reject) == ("SoftTimeout", False)


async def test_one_that_heeds_nothing_is_killed_after_two_seconds(tmp_path: Path) -> None:
    async with pool() as it:
        before = await it.result("pid")
        work = it.run("spin", str(tmp_path / "said"))
        await said(tmp_path / "said", 1)

        it.stop(work, Stop.LEAVING)
        began = time.monotonic()
        outcome = await it.ends.of(work)

        assert isinstance(outcome, Failed)
        assert (outcome.failure.type, outcome.retry_after_ms) == ("WorkerStopped", 0)
        assert 1.5 < time.monotonic() - began < 10
        assert await it.result("pid") != before


async def test_a_signal_to_the_whole_group_leaves_the_children_to_the_parent(tmp_path: Path) -> None:
    async with pool() as it:
        child = await it.result("pid")
        assert isinstance(child, int)

        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)

        assert await it.result("pid") == child


async def test_the_apps_middleware_runs_where_its_handlers_do() -> None:
    async with pool() as it:
        await it.result("double", 4)

        assert await it.result("noted") == ["double", "noted"]


async def test_the_apps_hooks_run_in_each_child_and_are_undone_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SAY_CLOSED, str(tmp_path / "said"))
    async with pool() as it:
        child = await it.result("pid")

        assert await it.result("opened") == [f"opened in {child}"]

    assert _lines(tmp_path / "said") == [f"closed {child}"]


async def test_handlers_find_an_empty_standard_input() -> None:
    async with pool() as it:
        assert await it.result("read") == ""


async def test_stopping_the_pool_ends_every_child(tmp_path: Path) -> None:
    async with pool(2) as it:
        idle = await it.result("pid")
        it.run("spin", str(tmp_path / "said"))
        (line,) = await said(tmp_path / "said", 1)
        children = [idle, int(line.split()[-1])]

    assert not any(psutil.pid_exists(child) for child in children if isinstance(child, int))


async def test_a_child_that_is_just_being_started_when_the_pool_stops_ends_by_itself() -> None:
    it = Pool(1)
    stopping = it.pool
    stopping._listener = it.ends
    starting = asyncio.create_task(stopping._spawn())
    await asyncio.sleep(0)
    await stopping.stop()

    async with asyncio.timeout(20):
        child = await starting
        status = await child.process.wait()
        with pytest.raises(ConfigError, match="ended before it was ready"):
            await child.ready

    assert status == 0


async def test_a_child_that_has_run_its_number_of_tasks_is_replaced_between_two(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="tq")
    async with pool(tasks_max=2) as it:
        pids = [await it.result("pid") for _ in range(5)]

    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert all(isinstance(outcome, bytes) for _, outcome in it.ends.outcomes)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"child process {pid} has run 2 tasks; another takes its place" for pid in (pids[0], pids[2])]


async def test_a_child_that_holds_too_much_memory_after_a_task_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tq")
    async with pool(memory_bytes_max=256 << 20) as it:
        before = await it.result("pid")
        assert await it.result("pid") == before
        await it.result("hoard", 400 << 20)

        assert await it.result("pid") != before
    (said,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        rf"child process {before} holds \d+\.\d MiB after 3 tasks, over 256 MiB; another takes its place", said
    )


async def test_a_child_that_ran_one_task_is_said_to_have_run_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tq")
    async with pool(memory_bytes_max=1 << 20) as it:
        pid = await it.result("pid")
        await it.result("pid")

    said = caplog.records[0].getMessage()
    assert said.startswith(f"child process {pid} holds ")
    assert said.endswith(" MiB after 1 task, over 1 MiB; another takes its place")


async def test_a_retired_child_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async with pool(tasks_max=1) as it:
        await it.result("leave_a_thread")

        await it.result("pid")
    assert caplog.records == []


async def test_there_are_more_children_while_all_are_busy_and_fewer_once_they_are_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tq.worker.pools.processes.IDLE_S", 0.2)
    async with pool(3, children_min=1) as it:
        at_first = it.pool.seats

        works = [it.run("sleep", str(tmp_path / "said"))]
        await it.ends.until(lambda: it.pool.seats == 2)
        with_one_busy = len(it.pool._seats)
        works.append(it.run("sleep", str(tmp_path / "said")))
        await it.ends.until(lambda: it.pool.seats == 3)
        works.append(it.run("sleep", str(tmp_path / "said")))
        at_most = len(it.pool._seats)
        await said(tmp_path / "said", 3)
        for work in works:
            it.stop(work, Stop.LEAVING)
        with caplog.at_level(logging.INFO):
            await it.ends.until(lambda: it.pool.seats == 1)
        result = await it.result("double", 2)

    assert (at_first, with_one_busy, at_most, result) == (1, 2, 3, 4)
    assert "has been idle for 0.2 s; it is let go" in caplog.text
    assert "another takes its place" not in caplog.text


async def test_an_app_that_cannot_be_imported_is_said_so_with_its_traceback() -> None:
    ends = Ends()
    broken = ProcessPool(Executor(app.registry, "w"), 2, "w", Upbringing("tests.worker.pools.nowhere:app"))

    with pytest.raises(ConfigError, match="No module named"):
        await broken.start(ends)


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Let this process open *number* descriptors more, and none beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free: list[int] = []
    while len(free) <= number:
        free.append(os.dup(0))
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("left", range(6))
async def test_a_pool_that_lacks_descriptors_says_so_at_its_start_and_leaves_nothing(left: int) -> None:
    made = Pool(1)
    before = open_descriptors()
    children = psutil.Process().children()  # other tests may have left one: the tracker of multiprocessing

    with descriptors_left(left):
        async with asyncio.timeout(20):
            with pytest.raises(ConfigError, match=r"a child process cannot be started: .*Too many open files"):
                await made.pool.start(made.ends)

    assert open_descriptors() == before
    assert not made.pool._children
    assert psutil.Process().children() == children


async def test_a_child_that_cannot_be_replaced_for_want_of_descriptors_is_replaced_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tq.worker.restarts.FIRST_S", 0.01)
    async with pool() as it:
        (child,) = it.pool._children
        with descriptors_left(0):
            held: list[int] = []
            child.kill()
            async with asyncio.timeout(20):
                while "cannot be started" not in caplog.text:
                    held += take_descriptors()
                    await asyncio.sleep(0.001)
        for descriptor in held:
            os.close(descriptor)

        assert await it.result("double", 2) == 4


def take_descriptors() -> list[int]:
    """Open descriptors until there are no more."""
    held: list[int] = []
    while True:
        try:
            held.append(os.dup(0))
        except OSError:
            return held


async def test_a_child_that_cannot_be_spoken_to_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    made = Pool(1)
    before = open_descriptors()
    children = psutil.Process().children()  # other tests may have left one: the tracker of multiprocessing
    monkeypatch.setattr(asyncio.get_running_loop(), "create_unix_connection", refuse)

    async with asyncio.timeout(20):
        with pytest.raises(ConfigError, match=r"cannot be started: .*allocate"):
            await made.pool.start(made.ends)

    assert psutil.Process().children() == children
    assert open_descriptors() == before


async def test_a_seat_that_fails_is_told_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tq.worker.restarts.FIRST_S", 0.01)
    errors: list[Exception] = []

    def count() -> int:
        if errors:
            raise errors.pop()
        return 0

    async with pool(1, count) as it:
        before = await it.result("pid")
        (child,) = it.pool._children
        errors.append(RuntimeError("the count cannot be read"))
        child.kill()
        await it.ends.until(lambda: it.pool.seats == 0)

        assert await it.result("pid") != before
    assert "a seat for a child process failed" in caplog.text
    assert "the count cannot be read" in caplog.text


async def test_children_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path[:] = {sys.path!r}
        from tests.worker.pools.test_processes import pool

        async def main():
            async with pool(2) as it:
                it.run("spin", {str(tmp_path / "said")!r})
                print(await it.result("pid"), flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
        """
    )
    parent = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    idle = int(await asyncio.to_thread(parent.stdout.readline))
    (line,) = await said(tmp_path / "said", 1)

    parent.kill()
    await asyncio.to_thread(parent.wait)
    parent.stdout.close()

    children = [psutil.Process(pid) for pid in (idle, int(line.split()[-1])) if psutil.pid_exists(pid)]
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 10)
    assert alive == []


async def test_a_start_that_is_cancelled_leaves_no_child_behind() -> None:
    made = Pool(2)
    starting = asyncio.create_task(made.pool.start(made.ends))
    async with asyncio.timeout(20):
        while len(made.pool._children) < 2:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.001)

    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert all(child.process.returncode is not None for child in made.pool._children)
