"""The written settings: config.example.yml and docs/configuration.md say what the code declares."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.settings_docs import DOCUMENT, EXAMPLE, REQUIRED_EXAMPLE, document, example
from tq.bin.declaration import Setting, settings_of
from tq.bin.settings import DEFAULT, PROGRAMS, load

EVERY = [
    pytest.param(program, setting, id=f"{program}.{name}")
    for program, struct in PROGRAMS.items()
    for name, setting in settings_of(struct).items()
]
TEXT = EXAMPLE.read_text(encoding="utf-8")


def uncommented() -> str:
    """The example with each `#name: value` line put in force."""
    return re.sub(r"^  #(\w+:( .*)?)$", r"  \1", TEXT, flags=re.MULTILINE)


def test_the_example_is_the_written_one() -> None:
    assert example() == TEXT


def test_the_tables_are_the_written_ones() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert document(text) == text


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_as_it_is_changes_nothing(program: str) -> None:
    loaded = load(program, PROGRAMS[program], dict(REQUIRED_EXAMPLE) if program == "worker" else {}, {}, EXAMPLE)

    assert {source for source in loaded.sources.values() if not source.startswith("--")} == {DEFAULT}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_with_every_line_in_force_is_the_defaults(program: str, tmp_path: Path) -> None:
    file = tmp_path / "tq.yml"
    file.write_text(uncommented())

    loaded = load(program, PROGRAMS[program], {}, {}, file)

    required = REQUIRED_EXAMPLE if program == "worker" else {}
    assert loaded.settings == PROGRAMS[program](**required)


@pytest.mark.parametrize("program, setting", EVERY)
def test_the_example_has_every_setting_with_its_default(program: str, setting: Setting) -> None:
    sections = yaml.safe_load(uncommented())

    value = sections[program][setting.name]

    assert (None if value is None else setting.parse(value)) == (
        REQUIRED_EXAMPLE[setting.name] if setting.required else setting.default
    )
    assert " ".join(setting.help.split()[:6]) in TEXT
