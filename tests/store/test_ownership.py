"""One owner of a directory at a time: in this process, among processes, and over a fork."""

import os
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
        with pytest.raises(StoreLocked, match="in this process"):
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


def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path / "missing", "me")
    (tmp_path / OWNER_FILE).mkdir()

    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path, "me")
    with pytest.raises(StoreError, match="cannot be used"):
        Ownership(tmp_path, "me")
