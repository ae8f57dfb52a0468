"""A real process writes, and is killed with kill -9 at a random moment: what it acknowledged is there.

The child commits batches of several rows that all carry the batch's number, and says
each number once its commit has ended. After the kill the batches must be a prefix,
whole, and none that was said may be missing; with each durability, since the operating
system survives. The child goes on where the last one stopped, so that recovery itself
is killed too.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tq.store.base import Durability
from tq.store.rocks import RocksStore

ROWS_IN_BATCH = 8
# About what it takes to import and to open.
STARTED_AFTER_S = 0.3


async def write(directory: Path, durability: Durability) -> None:
    """The child: batch after batch, numbered from where the directory stands, each said once committed."""
    store = RocksStore(directory, durability=durability)
    number = int(store.get(b"last") or b"0")
    while True:
        number += 1
        text = b"%d" % number
        rows: dict[bytes, bytes | None] = {b"row/%08d/%d" % (number, n): text for n in range(ROWS_IN_BATCH)}
        # Every third is a delivery, say: it keeps its place though nobody waits for the disk.
        await store.commit({**rows, b"last": text}, sync=number % 3 != 0)
        print(number, flush=True)
        await asyncio.sleep(0)


def killed_at(batches: int, chance: random.Random, directory: Path, durability: Durability) -> int:
    """Run the child, kill it once it has said *batches* more, and return the last number it said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, __file__, str(directory), durability.value], env=environment, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    if batches == 0:
        # While it starts, opens or recovers.
        time.sleep(chance.uniform(0.05, STARTED_AFTER_S))
    said = [child.stdout.readline() for _ in range(batches)]
    child.kill()
    said += child.stdout.readlines()
    child.stdout.close()
    assert child.wait(30) == -signal.SIGKILL, "the child ended by itself"
    whole = [line for line in said if line.endswith(b"\n")]
    return int(whole[-1]) if whole else 0


def check(directory: Path, said: int) -> int:
    """Check that the batches are whole, without a gap, and include what was *said*; return their number."""
    store = RocksStore(directory)
    batches = int(store.get(b"last") or b"0")
    assert batches >= said
    expected = [
        (b"row/%08d/%d" % (number, n), b"%d" % number) for number in range(1, batches + 1) for n in range(ROWS_IN_BATCH)
    ]
    assert store.scan(b"row/", b"row0", 1 << 30, 1 << 40) == expected
    store.close()
    return batches


@pytest.mark.acceptance
@pytest.mark.parametrize("durability", list(Durability), ids=lambda durability: durability.value)
def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, durability: Durability) -> None:
    chance = random.Random(f"kill {durability.value}")
    batches = 0

    for wanted in (0, *(chance.randint(1, 300) for _ in range(3)), 0, chance.randint(1, 300)):
        said = killed_at(wanted, chance, tmp_path / "data", durability)
        assert said >= wanted
        if (tmp_path / "data").exists():
            now = check(tmp_path / "data", said)
            assert now >= batches
            batches = now


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), Durability(sys.argv[2])))
