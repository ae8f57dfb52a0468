"""Settings: read from flags, environment, file and defaults, in this order of precedence.

Each program declares its settings as one frozen struct; this module reads the declaration
and knows no setting by name.  Invariant: what `load` returns is within its bounds, every
value knows where it came from, and nothing that was said anywhere has been ignored.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from tq.admin.config import AdminSettings
from tq.bin.quantities import Unit, parse_quantity, spell_quantity, unit_of
from tq.broker.config import BrokerSettings
from tq.core.errors import ConfigError
from tq.worker.config import WorkerSettings

PROGRAMS: dict[str, type[msgspec.Struct]] = {
    "broker": BrokerSettings,
    "worker": WorkerSettings,
    "admin": AdminSettings,
}
"""Each program's settings; the key is also the name of its section in a settings file."""

PREFIX = "TQ_"
CONFIG_VARIABLE = "TQ_CONFIG"
DEFAULT = "default"

# Kubernetes gives every container such variables for each Service: one that is called tq, or
# tq-broker, must not keep the programs from starting.
# Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"TQ_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})

S = TypeVar("S", bound=msgspec.Struct)


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
    def bounds(self) -> str:
        """What it may be, as the end of "must be ..."."""
        words = " or ".join(filter(None, [", ".join(self.words[:-1]), *self.words[-1:]]))
        if self.kind is int:
            number = f"{self.spell(self.low)} to {self.spell(self.high)}"
            number = (
                f"{number} (in {self.unit.name}, or such as {self.unit.example})"
                if self.unit.name
                else number
            )
            return f"{number} or {words}" if words else number
        if self.kind is bool:
            return "true or false"
        return words or "text"

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

    def spell(self, value: object) -> str:
        """Return a value as it would be written in a file or on the command line."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return spell_quantity(value, self.unit)
        return "" if value is None else str(value)


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
        group=extra.get("group", "Options"),
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


class Loaded(NamedTuple, Generic[S]):
    """The settings in effect, and where each came from."""

    settings: S
    sources: dict[str, str]


def load(
    program: str,
    struct: type[S],
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> Loaded[S]:
    """Return the settings of *program*, the first found of flag, environment, file and default for each.

    *flags* are those given on the command line, by the name of the setting; *environment*
    is the whole of it.  An empty variable counts as absent.

    Raises:
        ConfigError: Something said is unknown, out of its bounds or contradictory, or nothing is said of
            a setting that has no default.
    """
    declared = settings_of(struct)
    # From the weakest source to the strongest: a later one replaces an earlier one.
    said = [
        *_from_file(program, file),
        *_from_environment(declared, environment),
        *((name, value, declared[name].flag) for name, value in flags.items()),
    ]
    values: dict[str, object] = {}
    sources = dict.fromkeys(declared, DEFAULT)
    for name, value, source in said:
        try:
            values[name] = declared[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{source} {error}") from None
        sources[name] = source
    for name, setting in declared.items():
        if setting.required and name not in values:
            ways = " or ".join(filter(None, [setting.short, setting.flag]))
            raise ConfigError(
                f"{ways} is missing (or {setting.variable}, or {name} in the file): {setting.help}"
            )
    try:
        return Loaded(struct(**values), sources)
    except ValueError as error:
        named = [
            f"{n} is from {s}"
            for n, s in sources.items()
            if s != DEFAULT and re.search(rf"\b{n}\b", str(error))
        ]
        raise ConfigError(f"{error} ({'; '.join(named)})" if named else str(error)) from None


def config_file(flag: str | None, environment: Mapping[str, str]) -> Path | None:
    """Return the settings file to read: the one of ``--config``, else of $TQ_CONFIG, else none."""
    named = flag or environment.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _from_environment(
    declared: Mapping[str, Setting], environment: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """Yield what the environment says to this program; what others are told is only checked for its name."""
    mine = {setting.variable: name for name, setting in declared.items()}
    known = {s.variable for struct in PROGRAMS.values() for s in settings_of(struct).values()} | {
        CONFIG_VARIABLE
    }
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or _SERVICE_LINK.match(variable):
            continue
        if variable not in known:
            raise ConfigError(f"environment variable {variable} is no setting{_nearest(variable, known)}")
        if variable in mine and value:
            yield mine[variable], value, variable


def _from_file(program: str, file: Path | None) -> Iterator[tuple[str, object, str]]:
    """Yield what the file says to *program*, once all of its sections have been checked for unknown names."""
    if file is None:
        return
    sections = _read(file)
    for section, content in sections.items():
        if section not in PROGRAMS:
            raise ConfigError(f"{file}: {section!r} is no section{_nearest(str(section), PROGRAMS)}")
        if not isinstance(content, dict | None):
            raise ConfigError(
                f"{file}: {section} must hold settings, one NAME: VALUE a line; got {content!r}"
            )
        declared = settings_of(PROGRAMS[section])
        for name in content or {}:
            if name not in declared:
                raise ConfigError(f"{file}: {section}.{name} is no setting{_nearest(str(name), declared)}")
    for name, value in (sections.get(program) or {}).items():
        # `name:` with nothing after it is how YAML writes "I say nothing of this".
        if value is not None:
            yield name, value, f"{program}.{name} in {file}"


def _read(file: Path) -> dict[str, dict[str, object] | None]:
    """Return the sections of a settings file."""
    import yaml  # noqa: PLC0415 - 30 ms that a program without a settings file need not spend.

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {file} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the settings file {file} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold sections ({', '.join(PROGRAMS)}); got {type(content).__name__}")
    return content


def _nearest(wrong: str, known: Mapping[str, object] | set[str]) -> str:
    """Return the end of a sentence that says what may have been meant."""
    close = get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
