"""Declarations: what a program's settings struct says of each setting.

Invariant: this module knows no setting by name.  A struct's field is a setting: its
`msgspec.Meta` holds the help and, for an `int`, the bounds; `extra` its group and its
short flag.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Literal,
    NamedTuple,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from tq.core.quantities import Unit, parse_quantity, spell_quantity, unit_of

PREFIX = "TQ_"
"""What the name of every environment variable of the product starts with."""

GROUP_DEFAULT = "Options"

# What Python reads for bytes on the command line that are no UTF-8.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Setting(NamedTuple):
    """One setting, as its struct declares it."""

    name: str
    group: str
    help: str
    short: str | None
    required: bool
    default: object
    kind: type
    """What a value is: int, bool, str or Path."""
    words: tuple[str, ...]
    """The words it may be; beside a number if the kind is int, else alone."""
    low: int
    """The least and the greatest number, if the kind is int."""
    high: int

    @property
    def unit(self) -> Unit:
        """What its number counts."""
        return unit_of(self.name)

    @property
    def flag(self) -> str:
        """Its long flag."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{PREFIX}{self.name.upper()}"

    @property
    def limits(self) -> str:
        """The least and the greatest number it may be; empty if it is none."""
        return f"{self.spell(self.low)} to {self.spell(self.high)}" if self.kind is int else ""

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.kind is bool:
            return "true or false"
        return _either([part for part in (self.limits, *self.words) if part]) or "text"

    @property
    def bounds(self) -> str:
        """The same, with how a quantity may be written: the end of "must be ..."."""
        if not self.unit.name:
            return self.allowed
        return self.allowed.replace(self.limits, f"{self.limits} (in {self.unit.name}, or such as {self.unit.example})")

    def parse(self, value: object) -> object:
        """Return *value*, from a file's data or the text of a flag or variable, as the struct holds it.

        Raises:
            ValueError: It is none that this setting may have; the text starts with "must be".
        """
        wrong = ValueError(f"must be {self.bounds}; got {value!r}")
        if isinstance(value, str) and value in self.words:
            return value
        if self.kind is bool:
            word = str(value).lower()
            if not isinstance(value, bool | str) or word not in _TRUE | _FALSE:
                raise wrong
            return word in _TRUE
        if self.kind is int:
            return self._parse_number(value, wrong)
        if self.words or not isinstance(value, str) or not value:
            raise wrong
        if "\0" in value:
            raise ValueError(f"must be {self.bounds} without a NUL character; got {value!r}")
        # A path may be of any bytes; text is sent and logged.
        if self.kind is str and _LONE_SURROGATE.search(value):
            raise ValueError(f"must be {self.bounds} that UTF-8 can encode; got {value!r}")
        return self.kind(value)

    def _parse_number(self, value: object, wrong: ValueError) -> int:
        if isinstance(value, str):
            try:
                value = parse_quantity(value, self.unit)
            except ValueError:
                raise wrong from None
        if not isinstance(value, int) or isinstance(value, bool):
            raise wrong
        if not self.low <= value <= self.high:
            raise wrong
        return value

    def line(self, value: object) -> str:
        """Return the line of a settings file that says *value*."""
        import yaml  # noqa: PLC0415 - 30 ms that a program which writes no file need not spend.

        # Text goes through YAML, which knows when it needs quotes; a number may carry its unit without.
        if isinstance(value, int):
            return f"{self.name}: {self.spell(value)}"
        plain = None if value is None else str(value)
        return str(yaml.safe_dump({self.name: plain}, allow_unicode=True, width=1_000)).rstrip()

    def spell(self, value: object) -> str:
        """Return a value as it would be written in a file or on the command line."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return spell_quantity(value, self.unit)
        return "" if value is None else str(value)


def _either(choices: list[str]) -> str:
    """Return ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), *choices[-1:]]))


def settings_of(struct: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return the settings that *struct* declares, by name, in its order."""
    hints = get_type_hints(struct, include_extras=True)
    return {field.name: _setting(field, hints[field.name]) for field in msgspec.structs.fields(struct)}


def _setting(field: msgspec.structs.FieldInfo, hint: object) -> Setting:
    """Return one setting: its outermost `Meta` holds the help, an `int` within may have bounds in its own."""
    _, about = get_args(hint)
    extra = about.extra or {}
    kind: type = str
    words: tuple[str, ...] = ()
    low = high = 0
    for alternative, bounds in _alternatives(hint, about):
        if get_origin(alternative) is Literal:
            words = get_args(alternative)
        elif alternative is int:
            assert bounds.ge is not None, f"{field.name} has no lower bound"
            assert bounds.le is not None, f"{field.name} has no upper bound"
            kind, low, high = int, int(bounds.ge), int(bounds.le)
        elif alternative in (bool, Path):
            kind = cast(type, alternative)
        else:
            assert alternative in (str, NoneType), f"{field.name}: no program can be told a {alternative}"
    return Setting(
        name=field.name,
        group=extra.get("group", GROUP_DEFAULT),
        help=about.description or "",
        short=extra.get("short"),
        required=field.required,
        default=None if field.required else field.default,
        kind=kind,
        words=words,
        low=low,
        high=high,
    )


def _alternatives(hint: object, meta: Meta) -> Iterator[tuple[object, Meta]]:
    """Yield each plain type that *hint* is made of, and the `Meta` nearest to it."""
    if get_origin(hint) is Annotated:
        inner, meta = get_args(hint)
        yield from _alternatives(inner, meta)
    elif get_origin(hint) in (Union, UnionType):
        for alternative in get_args(hint):
            yield from _alternatives(alternative, meta)
    else:
        yield hint, meta
