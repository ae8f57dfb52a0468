"""Writes config.example.yml and the tables of docs/configuration.md from the declared settings.

Told --check, it writes nothing and ends with 1 where a file differs from what it would write.
"""

import sys
import textwrap
from pathlib import Path

from tq.bin.broker import DETAILS
from tq.bin.declaration import Setting, settings_of
from tq.bin.settings import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "config.example.yml"
DOCUMENT = ROOT / "docs" / "configuration.md"

HEAD = """\
# Every setting of every program, with its default; docs/configuration.md says more.
# A flag (--lease-ms 20s) wins over the environment (TQ_LEASE_MS=20s), the environment over this file.
# Name the file with --config FILE or in TQ_CONFIG. A line that starts with "#" and a name is the default:
# take the "#" away to change it. scripts/settings_docs.py wrote this text.
"""
REQUIRED_EXAMPLE = {"app": "examples.stdlib_index:app"}
LINE_CHARACTERS_MAX = 100


def example() -> str:
    """Return the text of config.example.yml: each setting explained and commented out."""
    lines = [HEAD]
    for program, struct in PROGRAMS.items():
        lines.append(f"{program}:")
        for setting in settings_of(struct).values():
            lines += textwrap.wrap(
                described(program, setting),
                LINE_CHARACTERS_MAX,
                initial_indent="  # ",
                subsequent_indent="  # ",
                break_on_hyphens=False,
            )
            value = REQUIRED_EXAMPLE[setting.name] if setting.required else setting.default
            lines += [f"  #{setting.line(value)}".replace(": null", ":"), ""]
    return "\n".join(lines)


def document(text: str) -> str:
    """Return the text of docs/configuration.md with its tables made anew."""
    for program, struct in PROGRAMS.items():
        rows = [row(program, setting) for setting in settings_of(struct).values()]
        head, mark, rest = text.partition(f"<!-- settings: {program} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        assert mark, f"{DOCUMENT} has no place for the settings of {program}"
        table = "\n".join(["| setting | flag | default | allowed | meaning |", "|---|---|---|---|---|", *rows])
        text = f"{head}{mark}\n{table}\n\n{end}{tail}"
    return text


def row(program: str, setting: Setting) -> str:
    """Return one row of a table."""
    flags = ", ".join(f"`{flag}`" for flag in (setting.flag, setting.short) if flag)
    default = (
        "required" if setting.required else f"`{setting.spell(setting.default)}`" if setting.default is not None else ""
    )
    return f"| `{setting.name}` | {flags} | {default} | {setting.allowed} | {explained(program, setting)} |"


def described(program: str, setting: Setting) -> str:
    """Return what a setting means and what it may be."""
    allowed = "" if setting.allowed == "text" else f" ({setting.allowed})"
    return f"{explained(program, setting)}{allowed}"


def explained(program: str, setting: Setting) -> str:
    """Return what a setting means."""
    detail = DETAILS.get(setting.name, "") if program == "broker" else ""
    return f"{setting.help} {detail}".rstrip()


def main() -> int:
    """Write the two files, or with --check compare them."""
    wanted = {EXAMPLE: example(), DOCUMENT: document(DOCUMENT.read_text(encoding="utf-8"))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} differs from the declared settings: run scripts/settings_docs.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
