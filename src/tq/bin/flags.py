"""Command lines: the flags of a program, made from its declared settings, and its help.

cyclopts cuts the command line into flags and writes the help; what the values mean is
`tq.bin.settings`' business, so that a wrong one reads the same wherever it was said.
"""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, CycloptsError, Group, Parameter

from tq import __version__
from tq.bin.declaration import Setting, settings_of
from tq.bin.output import write_out
from tq.bin.settings import Loaded, config_file, effective, load
from tq.core.errors import UsageError

EXIT_USAGE = 2
"""The exit code for a command line, a variable or a file that cannot be meant; as in most shells' tools."""

S = TypeVar("S", bound=msgspec.Struct)

_PRECEDENCE = (
    "Every option can also be set by an environment variable ({variable} for {flag}) and in the "
    "section {section} of a YAML file ({line}). A flag wins over the environment, the environment "
    "over the file, the file over the default; an option that does not exist is an error in each. Numbers "
    "may carry a unit: 250ms, 10s, 5m, 1h, 30d; 64KiB, 10MiB, 2GiB."
)
_ABOUT = Group("This program", sort_key=1_000)


def program(
    name: str,
    struct: type[S],
    run: Callable[[Loaded[S]], int],
    *,
    purpose: str,
    examples: str,
    details: Mapping[str, str] | None = None,
) -> App:
    """Return the command line of program *name*, which loads its settings and then calls *run*.

    *details* adds to the help of single settings, by name, what the declaration cannot know.
    """
    app = _cli(name, struct, purpose, examples)
    app.default(_command(name, struct, lambda loaded, _words: run(loaded), details or {}))
    return app


def program_of_commands(
    name: str,
    struct: type[S],
    run: Callable[[App, Loaded[S], tuple[str, ...]], int],
    *,
    purpose: str,
    examples: str,
) -> App:
    """Return the command line of a program of many commands, which takes its settings before or after each.

    *run* gets the returned app, which is where the commands are added, and the words that are not settings.
    """
    app = _cli(name, struct, purpose, examples)
    words = inspect.Parameter(
        "words",
        inspect.Parameter.VAR_POSITIONAL,
        annotation=Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    )
    app.meta.default(_command(name, struct, lambda loaded, words: run(app, loaded, words), {}, words))
    return app


def _command(
    name: str,
    struct: type[S],
    run: Callable[[Loaded[S], tuple[str, ...]], int],
    details: Mapping[str, str],
    *more: inspect.Parameter,
) -> Callable[..., int]:
    """Return a function that cyclopts can call: its signature has a parameter for each setting."""
    section = name.removeprefix("tq-")

    def command(*words: Any, **flags: Any) -> int:  # noqa: ANN401 - the signature below says more than this one.
        print_config = flags.pop("print_config", False)
        file = config_file(flags.pop("config", None), os.environ)
        # Of a flag that was not given, cyclopts passes nothing on.
        loaded = load(section, struct, flags, os.environ, file)
        if print_config:
            return write_out(name, lambda: print(effective(section, loaded)))
        return run(loaded, words)

    # cyclopts prefers annotations to the signature where there are both.
    command.__annotations__.clear()
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*more, *parameters(struct, details), *_own_parameters()]
    )
    return command


def _cli(name: str, struct: type[msgspec.Struct], purpose: str, examples: str) -> App:
    """Return an empty command line in the product's manner: errors are raised, never printed in a box."""
    *_, last = settings_of(struct).values()
    precedence = _PRECEDENCE.format(
        section=name.removeprefix("tq-"),
        variable=last.variable,
        flag=last.flag,
        line=f"{last.name}: {last.spell(last.default)}",
    )
    app = App(
        name=name,
        help=purpose,
        help_format="plaintext",
        help_epilogue=f"{precedence}\n\nExamples:\n\n{examples}",
        version=f"{name} {__version__}",
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    for flag, text in (("--help", "Show this text and end."), ("--version", "Show the version and end.")):
        app[flag].group, app[flag].help = _ABOUT, text
    return app


def parameters(struct: type[msgspec.Struct], details: Mapping[str, str]) -> list[inspect.Parameter]:
    """Return one keyword parameter for each setting of *struct*; None is what an absent flag leaves in it."""
    declared = settings_of(struct).values()
    names = dict.fromkeys(setting.group for setting in declared)
    groups = {name: Group(name, sort_key=place) for place, name in enumerate(names)}
    return [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                # Text, whatever it means: `Setting.parse` reads it.
                (bool if setting.kind is bool else str) | None,
                Parameter(
                    name=[name for name in (setting.flag, setting.short) if name],
                    help=_help(setting, details.get(setting.name, "")),
                    group=groups[setting.group],
                    metavar=None if setting.kind is bool else _form(setting),
                    show_default=False,
                ),
            ],
        )
        for setting in declared
    ]


def _own_parameters() -> list[inspect.Parameter]:
    """Return the parameters of `program` that are no settings."""
    return [
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                Parameter(help="YAML file to read settings from; else $TQ_CONFIG.", group=_ABOUT, metavar="FILE"),
            ],
        ),
        inspect.Parameter(
            "print_config",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool,
                Parameter(
                    help="Print the settings in effect and their sources, and end.",
                    group=_ABOUT,
                    negative="",
                    show_default=False,
                ),
            ],
        ),
    ]


def _form(setting: Setting) -> str:
    """Return what stands for the value of a flag in its help."""
    number = {"ms": "DURATION", "bytes": "SIZE"}.get(setting.unit.name, "NUMBER")
    kind = {int: number, Path: "PATH"}.get(setting.kind, "" if setting.words else "TEXT")
    return "|".join(filter(None, [kind, *setting.words]))


def _help(setting: Setting, detail: str) -> str:
    default = setting.spell(setting.default)
    marks = [f"[{setting.limits}]" if setting.limits else "", f"[default: {default}]" if default else ""]
    return " ".join(filter(None, [setting.help, detail, *marks]))


def start(app: App, arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return the exit code; say what is wrong with it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given)
    except (CycloptsError, UsageError) as error:
        name = app.name[0]
        print(f"{name}: {error}\nTry `{name} --help`.", file=sys.stderr)
        return EXIT_USAGE
    return code if isinstance(code, int) else 0
