"""The worker process: what follows from its settings and its app; tests/acceptance runs it."""

import os
from pathlib import Path
from typing import Literal

import pytest

from tq.app.app import App
from tq.bin.working import Exit, check, child_logs, concurrency, one_of, served, spell_queues, state_paths
from tq.worker.config import QueueWeight, ServedQueues, WorkerSettings, parse_queues
from tq.worker.state import StateFile


def app_of_queues(*queues: str) -> App:
    app = App("tq://127.0.0.1:1")
    for number, queue in enumerate(queues):
        app.task(name=f"task{number}", queue=queue)(lambda: None)
    return app


def test_the_queues_asked_for_are_served() -> None:
    settings = WorkerSettings(app="mail", queues="high:4,default")

    assert served(settings, app_of_queues("mail")) == ServedQueues(
        [QueueWeight("high", 4), QueueWeight("default", 1)], weighted=True
    )


def test_without_a_word_every_queue_of_the_app_is_served_equally() -> None:
    settings = WorkerSettings(app="mail")

    assert served(settings, app_of_queues("mail", "bills", "mail")) == ServedQueues(
        [QueueWeight("bills"), QueueWeight("mail")], weighted=False
    )


def test_an_app_without_tasks_serves_the_default_queue() -> None:
    assert served(WorkerSettings(app="mail"), app_of_queues()).queues == [QueueWeight("default")]


@pytest.mark.parametrize("pool, tasks", [("async", 100), ("thread", 8), ("process", os.cpu_count())])
def test_how_many_tasks_run_at_a_time_depends_on_the_pool(
    pool: Literal["async", "thread", "process"], tasks: int
) -> None:
    assert concurrency(WorkerSettings(app="mail", pool=pool)) == tasks
    assert concurrency(WorkerSettings(app="mail", pool=pool, concurrency=3)) == 3


def test_a_range_of_children_is_counted_by_its_greatest() -> None:
    assert concurrency(WorkerSettings(app="mail", pool="process", autoscale="2:7")) == 7


@pytest.mark.parametrize("limit", [{"max_tasks_per_child": 5}, {"max_memory_per_child": 1 << 30}])
def test_a_limit_on_children_is_refused_where_there_are_none(limit: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="the thread pool has no child processes"):
        WorkerSettings(app="mail", pool="thread", **limit)  # type: ignore[arg-type]

    WorkerSettings(app="mail", pool="process", **limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_terminal, colours", [(True, "yes"), (False, "no")])
def test_children_log_in_colours_if_what_they_say_ends_up_on_a_terminal(
    is_terminal: bool, colours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)

    assert child_logs(WorkerSettings(app="mail")) == ["tq.bin.working:log_as", "info", "console", colours]


def test_a_check_finds_the_worker_by_its_name_or_by_its_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    named, unnamed = WorkerSettings(app="mail", name="mail-1"), WorkerSettings(app="mail")
    before = check(named), check(unnamed)

    for settings in (named, unnamed):
        StateFile(state_paths(settings)[0], "w").note(1.0, connected=True)

    assert before == (Exit.FAILED, Exit.FAILED)
    assert (check(named), check(unnamed)) == (Exit.OK, Exit.OK)
    assert "worker-mail-1.json: no worker of this name runs here" in capsys.readouterr().out


def test_each_of_several_processes_has_its_name_and_its_signs_of_life(tmp_path: Path) -> None:
    settings = WorkerSettings(app="mail", name="m", processes=2, state_file=tmp_path / "m.json")
    nothing = check(settings)

    for number in (1, 2):
        (path,) = state_paths(one_of(settings, number))
        StateFile(path, "w").note(1.0, connected=True)

    assert nothing == Exit.FAILED
    assert check(settings) == Exit.OK
    assert [one_of(settings, number).name for number in (1, 2)] == ["m-1", "m-2"]
    assert one_of(WorkerSettings(app="mail", processes=2), 2).name is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-1.json", "m-2.json"]


def test_a_reader_of_the_log_can_tell_a_weight_from_a_name() -> None:
    assert spell_queues(parse_queues("eu::4,b:2")) == "eu:4 (weight 1), b (weight 2)"
    assert spell_queues(parse_queues("eu::4,b")) == "eu:4, b"
