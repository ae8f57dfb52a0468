"""One owner of a directory at a time: in this process, among processes, and over a fork."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tq.core.errors import StoreError, StoreLocked
from tq.store.ownership import OWNER_FILE, Ownership

SCRIPT = """
import os, sys
from pathlib import Path
from tq.core.errors import StoreLocked
from tq.store.ownership import Ownership
try:
    Ownership(Path(sys.argv[1]), "a script: join it by tq://x")
except StoreLocked as error:
    print(error)
    sys.exit(7)
if "die" in sys.argv:
    os.kill(os.getpid(), 9)
"""


def elsewhere(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Take the directory in another process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(directory), *words]
    return subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True, text=True)


def test_a_second_owner_is_refused_in_this_process_and_loses_nothing_for_the_first(tmp_path: Path) -> None:
    first = Ownership(tmp_path, "the first")

    for path in (tmp_path, tmp_path / "x" / ".."):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(StoreLocked, match=f"in process {os.getpid()}, the first"):
            Ownership(path, "the second")
    kept = elsewhere(tmp_path)
    first.release()

    assert kept.returncode == 7
    Ownership(tmp_path, "the second").release()


def test_who_is_refused_in_another_process_hears_who_holds_it_and_how_to_join(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "web.py: join it by file:/x")

    refused = elsewhere(tmp_path)
    owner.release()
    free = elsewhere(tmp_path)

    assert f"is open already, in process {os.getpid()}, web.py: join it by file:/x; or stop" in refused.stdout
    assert free.returncode == 0


def test_a_killed_owner_leaves_the_directory_free(tmp_path: Path) -> None:
    assert elsewhere(tmp_path, "die").returncode == -9

    Ownership(tmp_path, "the next").release()


def test_the_lock_is_for_its_user_alone(tmp_path: Path) -> None:
    Ownership(tmp_path, "me").release()

    assert (tmp_path / OWNER_FILE).stat().st_mode & 0o777 == 0o600


def test_a_fork_holds_nothing_and_ends_nothing(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "the parent")

    child = os.fork()
    if child == 0:
        code = 1
        try:
            Ownership(tmp_path, "the child")
        except StoreLocked as error:
            # The child's copy is let go of as well: that must not be the parent's.
            owner.release()
            code = 0 if "the parent" in str(error) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert elsewhere(tmp_path).returncode == 7
    owner.release()


def test_a_fork_does_not_keep_the_lock_of_a_parent_that_ended(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "the parent")
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has closed its end
        os._exit(0)
    owner.release()
    free = elsewhere(tmp_path)
    os.close(reading)
    os.close(writing)
    os.waitpid(child, 0)

    assert free.returncode == 0


FORKER = """
import os, sys, threading
from pathlib import Path
from tq.store.ownership import OWNER_FILE, Ownership

directory = Path(sys.argv[1])
sys.setswitchinterval(1e-6)
is_over = threading.Event()


def take_and_release():
    while not is_over.is_set():
        Ownership(directory, "the parent").release()


taking = threading.Thread(target=take_and_release)
taking.start()
kept = 0
for _ in range(400):
    child = os.fork()
    if child == 0:
        found = False
        for name in os.listdir("/proc/self/fd"):
            try:
                found = found or os.readlink(f"/proc/self/fd/{name}") == str(directory / OWNER_FILE)
            except OSError:
                pass
        os._exit(found)
    kept += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
is_over.set()
taking.join()
print(kept)
"""


def test_no_fork_comes_between_the_steps_of_another_thread_that_takes_or_releases_the_lock(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    forker = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKER, str(tmp_path)],
        env=environment, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert (forker.stdout, forker.stderr) == ("0\n", "")


def test_a_released_lock_is_free_though_a_copy_of_it_is_open(tmp_path: Path) -> None:
    owner = Ownership(tmp_path, "the owner")
    copy = os.dup(owner._descriptor)

    owner.release()
    free = elsewhere(tmp_path)
    os.close(copy)

    assert free.returncode == 0


def test_a_fork_that_owns_another_directory_does_not_lose_it_by_what_its_parent_had(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    owner = Ownership(tmp_path, "the parent")

    child = os.fork()
    if child == 0:
        own = Ownership(tmp_path / "other", "the child")  # It gets the number of the copy that was closed.
        owner.release()
        is_kept = elsewhere(tmp_path / "other").returncode == 7
        own.release()
        os._exit(0 if is_kept else 1)
    _, status = os.waitpid(child, 0)
    owner.release()

    assert os.waitstatus_to_exitcode(status) == 0


def test_a_copy_of_the_directory_does_not_cost_its_owner_the_lock(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    owner = Ownership(tmp_path / "data", "the owner")

    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    kept = elsewhere(tmp_path / "data")

    assert kept.returncode == 7
    owner.release()


RACER = """
import os, sys
from pathlib import Path
from tq.core.errors import StoreLocked
from tq.store.ownership import Ownership
directory, owned = Path(sys.argv[1]), 0
sys.stdin.readline()
for _ in range(3_000):
    try:
        ownership = Ownership(directory, "a racer")
    except StoreLocked:
        continue
    os.close(os.open(directory / "within", os.O_CREAT | os.O_EXCL))
    (directory / "within").unlink()
    ownership.release()
    owned += 1
print(owned)
"""


def test_of_processes_that_race_for_a_directory_one_at_a_time_has_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()

    ends = [racer.communicate(timeout=60) for racer in racers]

    assert [err for _, err in ends] == [""] * 3
    assert sum(int(out) for out, _ in ends) > 300


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path / "missing", "me")
    (tmp_path / OWNER_FILE).mkdir()

    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path, "me")
    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path, "me")
