"""Tests of bench.environments: what is said where something cannot be had."""

from pathlib import Path

import pytest

from bench import environments
from bench.environments import NotToBeHadError, python_with, server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environments, "HOME", tmp_path / "home")
    return tmp_path / "home"


def test_a_server_on_the_path_is_taken_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = server("redis-server", "redis-server")

    assert (found.path, found.libraries) == (program, None)


def test_a_machine_without_apt_is_told_what_to_install(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    for _ in range(2):  # what was begun is not taken for made
        with pytest.raises(NotToBeHadError, match=r"(?s)no apt-get.*apt-get install beanstalkd.*--only tq,floor"):
            server("beanstalkd", "beanstalkd")


@pytest.mark.acceptance
def test_an_environment_that_could_not_be_filled_is_not_taken_for_made(home: Path) -> None:
    with pytest.raises(NotToBeHadError, match="nothing-of-this-kind"):
        python_with("empty", ("./nothing-of-this-kind",))

    assert not (home / "environments" / "empty" / "made-of").exists()
