"""Command lines: what reaches the program, what its help teaches, and how it refuses."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pydantic  # noqa: F401 - see the test of it below
import pytest
from cyclopts import App
from msgspec import Meta

from tq import __version__
from tq.bin.declaration import settings_of
from tq.bin.flags import EXIT_USAGE, program, program_of_commands, start
from tq.bin.settings import Loaded
from tq.broker.config import BrokerSettings
from tq.worker.config import WorkerSettings


def broker(*words: str, seen: list[BrokerSettings] | None = None) -> int:
    """Run a program of the broker's settings that keeps them in *seen* and ends with 7."""

    def run(loaded: Loaded[BrokerSettings]) -> int:
        if seen is not None:
            seen.append(loaded.settings)
        return 7

    details = {"durability": "Sync loses nothing."}
    app = program("tq-broker", BrokerSettings, run, purpose="Keep tasks.", examples="    tq-broker", details=details)
    return start(app, words)


def worker(*words: str, seen: list[WorkerSettings]) -> int:
    def run(loaded: Loaded[WorkerSettings]) -> int:
        seen.append(loaded.settings)
        return 0

    return start(program("tq-worker", WorkerSettings, run, purpose="Run tasks.", examples="    tq-worker"), words)


def test_flags_become_settings_and_the_exit_code_is_the_programs() -> None:
    seen: list[BrokerSettings] = []

    code = broker("--lease-ms", "20s", "--data=x", "--insecure", "--listen", "0.0.0.0:1", seen=seen)

    assert code == 7
    assert seen == [BrokerSettings(lease_ms=20_000, data=Path("x"), insecure=True, listen="0.0.0.0:1")]


def test_short_flags_are_the_long_ones() -> None:
    seen: list[WorkerSettings] = []
    words = ["-A", "mail:app", "-Q", "a:2,b", "-c", "3", "-P", "process", "-n", "w1", "-l", "debug", "--burst"]

    code = worker(*words, seen=seen)

    assert code == 0
    assert seen == [
        WorkerSettings(
            app="mail:app",
            queues="a:2,b",
            concurrency=3,
            pool="process",
            name="w1",
            log_level="debug",
            burst=True,
        )
    ]


def test_the_environment_and_the_file_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tq.yml"
    file.write_text("broker: {queues_max: 5, lease_ms: 11s}")
    monkeypatch.setenv("TQ_LEASE_MS", "12s")
    monkeypatch.setenv("TQ_INSECURE", "yes")
    seen: list[BrokerSettings] = []

    broker("--config", str(file), "--no-insecure", seen=seen)

    assert seen == [BrokerSettings(queues_max=5, lease_ms=12_000)]


def test_the_variable_names_the_file_where_no_flag_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tq.yml"
    file.write_text("broker: {queues_max: 5}")
    monkeypatch.setenv("TQ_CONFIG", str(file))
    seen: list[BrokerSettings] = []

    broker(seen=seen)

    assert seen == [BrokerSettings(queues_max=5)]


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--lease", "3"], "Unknown option: --lease. Did you mean --lease-ms?"),
        (["--lease-ms"], "--lease-ms requires an argument"),
        (["--lease-ms", "1"], "--lease-ms must be 500ms to 1h (in ms, or such as 10s, 5m, 30d); got '1'"),
        (["--durability", "fsync"], "--durability must be sync, interval or none; got 'fsync'"),
        (["--lease-ms", "9s", "--lease-ms", "8s"], "--lease-ms specified multiple times"),
        (["here"], "here"),
        (["--config", "nowhere.yml"], "nowhere.yml cannot be read"),
    ],
)
def test_a_wrong_command_line_is_told_on_standard_error(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = broker(*words)

    out, err = capsys.readouterr()
    assert (code, out) == (EXIT_USAGE, "")
    assert err.startswith("tq-broker: ")
    assert complaint in err
    assert "Try `tq-broker --help`." in err


def test_pydantic_being_loaded_changes_no_message(capsys: pytest.CaptureFixture[str]) -> None:
    # cyclopts hands the values of flags to pydantic, once anything has imported that.
    assert "pydantic" in sys.modules

    broker("--lease-ms", "soon", "--durability", "sync")

    assert "--lease-ms must be 500ms to 1h" in capsys.readouterr().err


def test_help_has_every_option_with_its_bounds_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert broker("--help") == 0

    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for setting in settings_of(BrokerSettings).values():
        assert f"{setting.flag} " in text, setting.name
        assert setting.help in text, setting.name
        assert f"[default: {setting.spell(setting.default)}]" in text
        assert not setting.limits or f"[{setting.limits}]" in text
        assert all(word in text for word in setting.words)


def test_help_teaches_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    broker("--help")

    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in (
        "Keep tasks.",
        "Sync loses nothing.",
        "A flag wins over the environment",
        "section broker of a YAML file",
        "TQ_LOG_FORMAT for --log-format",
        "Examples: tq-broker",
        "--print-config",
        "--config",
        "--version",
    ):
        assert part in text


def test_groups_come_in_the_order_in_which_they_are_declared(capsys: pytest.CaptureFixture[str]) -> None:
    broker("--help")

    text = capsys.readouterr().out
    groups = list(dict.fromkeys(setting.group for setting in settings_of(BrokerSettings).values()))
    places = [text.index(f" {group} ") for group in groups]
    assert places == sorted(places)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert broker("--version") == 0
    assert capsys.readouterr().out == f"tq-broker {__version__}\n"


def test_the_settings_in_effect_are_printed_instead_of_running(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[BrokerSettings] = []

    code = broker("--print-config", "--lease-ms", "20000", seen=seen)

    assert (code, seen) == (0, [])
    assert "  lease_ms: 20s  # from --lease-ms" in capsys.readouterr().out.splitlines()


class Sample(msgspec.Struct, frozen=True):
    url: Annotated[str, Meta(description="Where.")] = "tq://127.0.0.1:7766"
    json: Annotated[bool, Meta(description="JSON.")] = False
    timeout_ms: Annotated[Literal["short", "long"], Meta(description="Wait.")] = "short"


@pytest.mark.parametrize(
    "words", [["show", "mail", "--json", "--limit", "3"], ["--json", "show", "mail", "--limit", "3"]]
)
def test_a_program_of_commands_takes_its_settings_before_and_after_them(words: list[str]) -> None:
    seen: list[tuple[Sample, tuple[str, ...]]] = []

    def run(_app: App, loaded: Loaded[Sample], words: tuple[str, ...]) -> int:
        seen.append((loaded.settings, words))
        return 3

    app = program_of_commands("tq-admin", Sample, run, purpose="Ask.", examples="    tq-admin show")

    assert start(app.meta, words) == 3
    assert seen == [(Sample(json=True), ("show", "mail", "--limit", "3"))]
