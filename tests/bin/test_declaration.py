"""Declarations: what is read off a settings struct, and how one value is parsed and spelled."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
import yaml
from msgspec import Meta

from tq.bin.declaration import GROUP_DEFAULT, Setting, settings_of
from tq.bin.settings import PROGRAMS

EVERY = [
    pytest.param(setting, id=f"{program}.{name}")
    for program, struct in PROGRAMS.items()
    for name, setting in settings_of(struct).items()
]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    must: Annotated[str, Meta(description="Must.", extra={"group": "First", "short": "-m"})]
    wait_ms: Annotated[int, Meta(ge=0, le=60_000, description="Wait.")] = 1_000
    level: Annotated[Literal["low", "high"], Meta(description="Level.")] = "low"
    slots: Annotated[Annotated[int, Meta(ge=1, le=9)] | Literal["auto"], Meta(description="Slots.")] = "auto"
    folder: Annotated[Path, Meta(description="Folder.")] = Path("here")
    name: Annotated[str | None, Meta(description="Name.")] = None
    loud: Annotated[bool, Meta(description="Loud.")] = False


SAMPLE = settings_of(Sample)


def test_a_field_is_a_setting() -> None:
    assert list(SAMPLE) == ["must", "wait_ms", "level", "slots", "folder", "name", "loud"]
    assert SAMPLE["must"] == Setting("must", "First", "Must.", "-m", True, None, str, (), 0, 0)
    assert SAMPLE["wait_ms"] == Setting("wait_ms", GROUP_DEFAULT, "Wait.", None, False, 1_000, int, (), 0, 60_000)
    assert (SAMPLE["level"].kind, SAMPLE["level"].words) == (str, ("low", "high"))
    assert (SAMPLE["slots"].kind, SAMPLE["slots"].words, SAMPLE["slots"].high) == (int, ("auto",), 9)
    assert (SAMPLE["folder"].kind, SAMPLE["name"].kind, SAMPLE["loud"].kind) == (Path, str, bool)


def test_its_names_follow_from_the_fields() -> None:
    assert (SAMPLE["wait_ms"].flag, SAMPLE["wait_ms"].variable) == ("--wait-ms", "TQ_WAIT_MS")


@pytest.mark.parametrize(
    "name, bounds",
    [
        ("wait_ms", "0 to 1m (in ms, or such as 10s, 5m, 30d)"),
        ("level", "low or high"),
        ("slots", "1 to 9 or auto"),
        ("loud", "true or false"),
        ("folder", "text"),
    ],
)
def test_its_bounds_are_words(name: str, bounds: str) -> None:
    assert SAMPLE[name].bounds == bounds
    assert SAMPLE[name].allowed == bounds.partition(" (")[0]


@pytest.mark.parametrize(
    "name, value, parsed",
    [
        ("wait_ms", 5, 5),
        ("wait_ms", "5s", 5_000),
        ("wait_ms", "1m", 60_000),
        ("level", "high", "high"),
        ("slots", "9", 9),
        ("slots", "auto", "auto"),
        ("folder", "there", Path("there")),
        ("name", "5", "5"),
        ("loud", True, True),
        ("loud", "No", False),
    ],
)
def test_a_value_is_parsed_into_what_the_struct_holds(name: str, value: object, parsed: object) -> None:
    found = SAMPLE[name].parse(value)

    assert found == parsed
    assert type(found) is type(parsed)


@pytest.mark.parametrize(
    "name, value",
    [
        ("wait_ms", -1),
        ("wait_ms", 60_001),
        ("wait_ms", True),
        ("wait_ms", 1.0),
        ("wait_ms", None),
        ("level", "HIGH"),
        ("level", 1),
        ("slots", "10"),
        ("slots", "Auto"),
        ("folder", ""),
        ("folder", 3),
        ("folder", "a\0b"),
        ("name", "a\udcff"),
        ("name", []),
        ("loud", "2"),
        ("loud", 1),
    ],
)
def test_a_value_that_it_may_not_have_is_refused_with_what_it_may(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"^must be ") as caught:
        SAMPLE[name].parse(value)

    assert SAMPLE[name].bounds in str(caught.value)
    assert str(caught.value).endswith(f"got {value!r}")


def test_a_number_without_bounds_is_a_fault_of_the_declaration() -> None:
    class Endless(msgspec.Struct):
        wait_ms: Annotated[int, Meta(ge=0, description="Wait.")] = 1

    with pytest.raises(AssertionError, match="wait_ms has no upper bound"):
        settings_of(Endless)


@pytest.mark.parametrize("setting", EVERY)
def test_every_setting_is_described_and_its_default_is_allowed(setting: Setting) -> None:
    assert setting.help.endswith(".")
    if not setting.required and setting.default is not None:
        assert setting.parse(setting.spell(setting.default)) == setting.default


@pytest.mark.parametrize("setting", EVERY)
def test_a_line_of_a_file_is_read_back(setting: Setting) -> None:
    value = "yes: [" if setting.required else setting.default

    read = yaml.safe_load(setting.line(value))[setting.name]

    assert (None if read is None else setting.parse(read)) == value
