"""A child's standard error: all of it is passed on, and its end is remembered."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tq.worker.pools.stderr import LAST_BYTES_MAX, ChildStderr


@asynccontextmanager
async def stderr_into(path: Path) -> AsyncIterator[ChildStderr]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    stderr = ChildStderr(file)
    try:
        yield stderr
    finally:
        stderr.close()
        os.close(stderr.write_end)
        os.close(file)


async def test_whole_lines_are_passed_on_as_they_come_and_the_rest_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with stderr_into(out) as stderr:
        os.write(stderr.write_end, b"one\ntwo\nthr")
        stderr.last_words()
        in_between = out.read_bytes()

        assert stderr.last_words() == "one\ntwo\nthr"

    assert in_between == b"one\ntwo\n"
    assert out.read_bytes() == b"one\ntwo\nthr"


async def test_it_is_read_by_the_loop_without_being_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with stderr_into(out) as stderr, asyncio.timeout(20):
        os.write(stderr.write_end, b"said\n")
        # Each turn of the loop may read; there is nothing to wait for but that.
        while out.read_bytes() != b"said\n":  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0)


async def test_only_the_last_lines_are_remembered(tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = [f"line {number}" for number in range(1_000)]
    async with stderr_into(out) as stderr:
        os.write(stderr.write_end, "\n".join([*lines, ""]).encode())

        last = stderr.last_words()

    assert len(last) <= LAST_BYTES_MAX
    kept = last.split("\n")
    assert kept == lines[-len(kept) :]
    assert len(out.read_text().splitlines()) == 1_000


async def test_a_line_longer_than_what_is_remembered_is_remembered_in_part(tmp_path: Path) -> None:
    async with stderr_into(tmp_path / "out") as stderr:
        os.write(stderr.write_end, b"\xff" * 9_000)

        last = stderr.last_words()

    assert last == "\N{REPLACEMENT CHARACTER}" * LAST_BYTES_MAX
    assert (tmp_path / "out").read_bytes() == b"\xff" * 9_000


async def test_what_was_said_before_can_be_forgotten(tmp_path: Path) -> None:
    async with stderr_into(tmp_path / "out") as stderr:
        os.write(stderr.write_end, b"before\n")
        stderr.forget()
        os.write(stderr.write_end, b"after\n")

        assert stderr.last_words() == "after"


async def test_an_end_that_nobody_can_write_to_any_more_is_closed(tmp_path: Path) -> None:
    file = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    stderr = ChildStderr(file)

    os.close(stderr.write_end)
    stderr.last_words()
    stderr.close()
    os.close(file)

    assert not stderr.is_open


async def test_a_standard_error_that_is_gone_costs_only_what_it_would_have_shown(tmp_path: Path) -> None:
    file = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    os.close(file)
    stderr = ChildStderr(file)

    os.write(stderr.write_end, b"lost\n")
    last = stderr.last_words()
    stderr.close()
    os.close(stderr.write_end)

    assert last == "lost"
