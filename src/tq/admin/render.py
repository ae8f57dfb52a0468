"""Output: answers and errors as text for people or as one JSON document for programs.

Invariant: nothing that comes from the broker reaches the terminal as a control character,
a row is one line however narrow the terminal, and where there is none there is no colour.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

import msgspec

from tq.admin.answer import Answer, Block, Cell, Document, Facts, Listing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wider than any listing: a row is a line, and an id folded into a narrow column could not be copied.
_ENDLESS = 10_000


def print_answer(answer: Answer, stream: TextIO, *, as_json: bool) -> None:
    """Write *answer* to *stream*."""
    if as_json:
        print_document(answer.document, stream)
        return
    for index, block in enumerate(answer.blocks):
        if index:
            print(file=stream)
        _print_block(block, stream)


def print_document(document: Document, stream: TextIO) -> None:
    """Write one JSON document, indented, and a line end."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode(), file=stream)


def print_error(code: str, text: str, exit_code: int, stream: TextIO, *, as_json: bool) -> None:
    """Write what went wrong to *stream*, which is standard error."""
    if as_json:
        print_document({"error": {"code": code, "text": text, "exit_code": exit_code}}, stream)
    else:
        print(f"tq-admin: {printable(text)}", file=stream)


def printable(text: str) -> str:
    r"""Return *text* with every control character spelled (``\x1b``), but for line ends and tabs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _print_block(block: Block, stream: TextIO) -> None:
    match block:
        case str():
            print(printable(block), file=stream)
        case Listing(rows=[]):
            print(block.empty, file=stream)
        case Listing():
            # Captured: at a reader that has gone, rich itself would end the program.
            console = _console(stream)
            with console.capture() as text:
                console.print(_table(block.header, block.rows))
            stream.write(text.get())
        case Facts():
            known = [(label, value) for label, value in block.rows if value is not None]
            width = max(len(label) for label, _ in known)
            for label, value in known:
                print(f"{label:<{width}}  {_text(value)}", file=stream)


def _table(header: tuple[str, ...], rows: Iterable[tuple[Cell, ...]]) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - 40 ms that a command without a listing need not spend.
    from rich.text import Text  # noqa: PLC0415 - the same.

    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [tuple(row) for row in rows]
    for index, title in enumerate(header):
        is_number = all(isinstance(row[index], int) for row in cells)
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        # A Text is taken as it is: brackets in a task's name are no markup.
        table.add_row(*(Text(_text(cell)) for cell in row))
    return table


def _text(cell: Cell) -> str:
    match cell:
        case None | "":
            return "-"
        case int():
            return f"{cell:,}"
        case str():
            return printable(cell)


def _console(stream: TextIO) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - as above.

    return Console(file=stream, width=_ENDLESS, highlight=False)
