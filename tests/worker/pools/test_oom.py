"""The kernel's count of kills for want of memory: which file has it, and what it says."""

from pathlib import Path

import pytest

from tq.worker.pools.oom import OomKills


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


EVENTS = "low 0\nhigh 2\nmax 9\noom 5\noom_kill {}\noom_group_kill 0\n"
VMSTAT = {"proc/vmstat": "nr_free_pages 1\noom_kill 90\n"}


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/shop\n", "sys/fs/cgroup/shop/memory.events": EVENTS.format(4)},
        {"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/memory.events": EVENTS.format(4)},
        {
            "proc/self/cgroup": "5:cpu:/\n4:memory:/shop\n0::/\n",
            "sys/fs/cgroup/memory/shop/memory.oom_control": "under_oom 0\noom_kill 4\n",
        },
    ],
    ids=["the group of version 2", "a container's root", "the group of version 1"],
)
def test_the_count_of_the_own_group_goes_before_that_of_the_machine(files: dict[str, str], tmp_path: Path) -> None:
    kills = OomKills(machine(tmp_path, files | VMSTAT))

    assert kills.count() == 4


def test_the_machine_is_asked_where_the_group_keeps_no_count(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/shop\n", "sys/fs/cgroup/shop/memory.events": "low 0\n"}
    kills = OomKills(machine(tmp_path, files | VMSTAT))
    before = kills.count()

    machine(tmp_path, {"proc/vmstat": "oom_kill 91\n"})

    assert (before, kills.count()) == (90, 91)


def test_a_system_that_says_nothing_has_killed_nobody(tmp_path: Path) -> None:
    assert OomKills(tmp_path).count() == 0


def test_a_file_that_goes_away_counts_as_nothing(tmp_path: Path) -> None:
    kills = OomKills(machine(tmp_path, VMSTAT))

    (tmp_path / "proc/vmstat").unlink()

    assert kills.count() == 0
