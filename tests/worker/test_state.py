"""A worker's sign of life: written as the loop turns, judged from outside."""

import os
from pathlib import Path

import pytest

from tq.core.errors import ConfigError
from tq.worker.state import APART_S, STILL_S, StateFile, ailment, default_path, read_state


class Wall:
    """The time of day, which a test moves."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def kept(path: Path, wall: Wall, *, connected: bool | None = None) -> StateFile:
    """The file of a worker that has started and, unless it is None, been connected or not."""
    file = StateFile(path, "mail-1", wall)
    if connected is not None:
        file.note(1.0, connected=connected)
    os.utime(path, (wall.now, wall.now))
    return file


def test_a_connected_worker_whose_loop_turns_works(tmp_path: Path) -> None:
    wall, path = Wall(), tmp_path / "new" / "state.json"
    kept(path, wall, connected=True)

    assert ailment(path, wall.now + STILL_S) is None
    assert read_state(path).name == "mail-1"


def test_a_loop_that_stands_still_is_told(tmp_path: Path) -> None:
    wall, path = Wall(), tmp_path / "state.json"
    kept(path, wall, connected=True)

    found = ailment(path, wall.now + STILL_S + 5)

    pid = os.getpid()
    assert found == f"worker mail-1 (process {pid}): its event loop has not turned for 15 s, or it is gone"


def test_one_that_has_never_reached_its_broker_does_not_work_yet(tmp_path: Path) -> None:
    wall, path = Wall(), tmp_path / "state.json"
    kept(path, wall, connected=False)

    assert "has not reached its broker yet, for 3 s" in str(ailment(path, wall.now + 3))


@pytest.mark.parametrize("after_s, works", [(APART_S, True), (APART_S + 1, False)])
def test_a_broker_may_restart_under_a_worker(after_s: float, works: bool, tmp_path: Path) -> None:
    wall, path = Wall(), tmp_path / "state.json"
    file = kept(path, wall, connected=True)

    file.note(2.0, connected=False)
    wall.now += after_s
    os.utime(path, (wall.now, wall.now))

    assert (ailment(path, wall.now) is None) == works


def test_the_file_is_touched_once_a_second_while_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = kept(path, Wall(), connected=True)
    touched = []

    for now in (1.9, 2.0, 2.5):
        os.utime(path, (1.0, 1.0))
        file.note(now, connected=True)
        touched.append(path.stat().st_mtime != 1.0)

    assert touched == [False, True, False]


def test_a_file_that_was_cleaned_away_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = kept(path, Wall(), connected=True)

    path.unlink()
    file.note(5.0, connected=True)

    assert read_state(path).connected


def test_a_file_is_removed_by_the_worker_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = kept(path, Wall())

    other = path.read_text().replace(str(os.getpid()), "1")
    path.write_text(other)
    file.remove()
    stays = path.exists()
    kept(path, Wall()).remove()

    assert stays
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "no worker of this name runs here" in str(ailment(tmp_path / "none.json", 0.0))


def test_what_is_no_state_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("[]")

    assert "cannot be read" in str(ailment(tmp_path / "x", 0.0))


def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"the state file .* cannot be written"):
        StateFile(tmp_path / "file" / "state.json", "w")


def test_a_link_laid_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "state.json", tmp_path / "victim"
    victim.write_text("precious")
    path.with_name(f"state.json.{os.getpid()}").symlink_to(victim)

    kept(path, Wall())

    assert victim.read_text() == "precious"


def test_the_default_is_in_the_users_runtime_directory() -> None:
    temporary = Path("/tmp")

    assert default_path("a/b:c", {"XDG_RUNTIME_DIR": "/run/user/7"}, temporary) == Path(
        "/run/user/7/tq/worker-a_b_c.json"
    )
    assert default_path("mail-1", {}, temporary) == Path(f"/tmp/tq-{os.getuid()}/worker-mail-1.json")
