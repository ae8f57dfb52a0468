"""Settings: read from flags, environment, file and defaults, in this order of precedence.

Invariant: what `load` returns is within its bounds, every
value knows where it came from, and nothing that was said anywhere has been ignored.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from tq.admin.config import AdminSettings
from tq.bin.declaration import PREFIX, Setting, settings_of
from tq.broker.config import BrokerSettings
from tq.core.errors import ConfigError
from tq.worker.config import WorkerSettings

PROGRAMS: dict[str, type[msgspec.Struct]] = {
    "broker": BrokerSettings,
    "worker": WorkerSettings,
    "admin": AdminSettings,
}
"""Each program's settings; the key is also the name of its section in a settings file."""

CONFIG_VARIABLE = "TQ_CONFIG"
DEFAULT = "default"

# Kubernetes gives every container such variables for each Service: one that is called tq, or
# tq-broker, must not keep the programs from starting.
# Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"TQ_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)

S = TypeVar("S", bound=msgspec.Struct)


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
            raise ConfigError(f"{ways} is missing (or {setting.variable}, or {name} in the file): {setting.help}")
    try:
        return Loaded(struct(**values), sources)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{error}{_concerned(str(error), values, sources)}") from None


def _concerned(text: str, values: Mapping[str, object], sources: Mapping[str, str]) -> str:
    """Return where the settings come from that an error names, or whose value it quotes."""
    told = [
        f"{name} is from {sources[name]}"
        for name, value in values.items()
        if re.search(rf"\b{name}\b", text) or repr(value) in text
    ]
    return f" ({'; '.join(told)})" if told else ""


def effective(program: str, loaded: Loaded[S]) -> str:
    """Return the settings in effect as the section of a settings file, each with its source behind it."""
    lines = [f"{program}:"]
    for name, setting in settings_of(type(loaded.settings)).items():
        source = loaded.sources[name]
        told = source if source == DEFAULT else f"from {source}"
        lines.append(f"  {setting.line(getattr(loaded.settings, name))}  # {told}")
    return "\n".join(lines)


def config_file(flag: str | None, environment: Mapping[str, str]) -> Path | None:
    """Return the settings file to read: the one of ``--config``, else of $TQ_CONFIG, else none."""
    named = flag or environment.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _from_environment(
    declared: Mapping[str, Setting], environment: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """Yield what the environment says to this program; what others are told is only checked for its name."""
    mine = {setting.variable: name for name, setting in declared.items()}
    known = {s.variable for struct in PROGRAMS.values() for s in settings_of(struct).values()} | {CONFIG_VARIABLE}
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
            raise ConfigError(f"{file}: {section} must hold settings, one NAME: VALUE a line; got {content!r}")
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

    from tq.bin.yaml_numbers import SettingsLoader, is_octal  # noqa: PLC0415 - the same.

    def check(mapping: yaml.Node | None) -> list[yaml.Node]:
        """Refuse the second of two names, which YAML forbids, and octal numbers; return what is named."""
        pairs = mapping.value if isinstance(mapping, yaml.MappingNode) else []
        seen: set[str] = set()
        for key, value in pairs:
            if str(key.value) in seen:
                raise ConfigError(f"{file}, line {key.start_mark.line + 1}: {key.value!r} is there a second time")
            if is_octal(value):
                raise ConfigError(
                    f"{file}, line {value.start_mark.line + 1}: {key.value}: {value.value} may be meant to the base of "
                    "eight or of ten: write a number without zeros before it, and text in quotes"
                )
            seen.add(str(key.value))
        return [value for _, value in pairs]

    try:
        text = file.read_text(encoding="utf-8")
        for section in check(yaml.compose(text, Loader=SettingsLoader)):
            check(section)
        content = yaml.load(text, Loader=SettingsLoader)  # noqa: S506 - it is a safe one.
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {file} cannot be read: {error}") from error
    except RecursionError:
        raise ConfigError(
            f"the settings file {file} is nested too deep: it has sections, and NAME: VALUE in them"
        ) from None
    except (ValueError, yaml.YAMLError) as error:
        # YAML's library says ValueError of a date or a number that there is not.
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
