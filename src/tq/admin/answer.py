"""Answers: what a command has to say, once for people and once for programs, and neither as text yet.

Invariant: an answer holds no payload and no result, and its document is made of what JSON
has: ids as UUID text, instants as ISO 8601 in UTC, enumerations as their values.
"""

from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

import msgspec

from tq.core.ids import ID_BYTES, format_id

Cell = str | int | None
Document = dict[str, object] | list[object] | str | int | float | bool | None

EXIT_OK = 0
EXIT_REFUSED = 1
"""The broker refused, or there is no such thing."""
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
"""No broker answered."""

# What a task was given and what it returned are its owner's, not the operator's.
_NEVER_SHOWN = frozenset({"payload", "result", "codec"})


class Listing(NamedTuple):
    """Rows under a header; ``empty`` is said when there are none."""

    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    empty: str


class Facts(NamedTuple):
    """Names and values, a line each; a value that is None is left out."""

    rows: list[tuple[str, Cell]]


Block = Listing | Facts | str


class Answer(NamedTuple):
    """What a command has to say."""

    document: Document
    blocks: list[Block]
    exit_code: int = EXIT_OK


def document(value: object) -> Document:
    """Return *value*, a view or a part of one, as what JSON has."""
    match value:
        case msgspec.Struct():
            return {
                name.removesuffix("_ms") + "_at" if name == "clock_ms" else name: _field(name, getattr(value, name))
                for name in value.__struct_fields__
                if name not in _NEVER_SHOWN
            }
        case bytes():
            return format_id(value) if len(value) == ID_BYTES else value.hex()
        case Enum():
            return document(value.value)
        case list() | tuple():
            return [document(part) for part in value]
        case dict():
            return {str(name): document(part) for name, part in value.items()}
        case str() | int() | float() | None:
            return value
        case _:
            raise TypeError(f"a view holds no {type(value).__name__}")


def _field(name: str, value: object) -> Document:
    if isinstance(value, int) and (name.endswith("_at") or name == "clock_ms"):
        return instant(value)
    return document(value)


def instant(milliseconds: int) -> str:
    """Return an instant as ISO 8601 in UTC, to the millisecond: ``2026-11-24T03:45:03.120Z``."""
    at = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at(milliseconds: int | None) -> str | None:
    """Return an instant for a reader, to the second: ``2026-11-24 03:45:03Z``; None for none."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds // 1_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def counted(number: int, noun: str) -> str:
    """Return ``1 task``, ``2,000 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_line(text: str, characters_max: int) -> str:
    """Return *text* as one line of at most *characters_max*."""
    line = " ".join(text.split())
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"
