"""Logs: entries of structlog and of the standard library leave by one door, standard error, in one form.

    console   a line for people, in colours where standard error is a terminal
    json      one JSON object a line: timestamp (UTC), level, logger, event, and the entry's own fields

What is said with ``extra=`` (such as the task's id in a handler's log) is a field of the entry.
"""

import logging
import sys
from collections.abc import Iterable
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from tq.admin.render import printable


def configure(
    level: str,
    form: str,
    stream: TextIO | None = None,
    processors: Iterable[Processor] = (),
    *,
    colours: bool | None = None,
) -> None:
    """Send every entry of at least *level* to *stream* (default: standard error) as *form*, console or json.

    Each of *processors* sees every entry where it is said, and may add fields to it.  *colours* are for
    the console; without a word they are there if *stream* is a terminal.  A second call
    replaces the first.
    """
    stream = sys.stderr if stream is None else stream
    colours = stream.isatty() if colours is None else colours
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        *processors,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A logger made before this call must not keep the manner it had then.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(form, colours=colours),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    logging.captureWarnings(capture=True)


def _rendering(form: str, *, colours: bool) -> list[Processor]:
    """Return the processors that make an entry a line."""
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_as_json)]
    return [
        structlog.processors.format_exc_info,
        _without_control_characters,
        structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
    ]


def _without_control_characters(_logger: object, _method: str, entry: EventDict) -> EventDict:
    """Spell control characters out: what a task says must not steer the terminal of who reads it."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in entry.items()}


def _as_json(entry: object, **_options: object) -> str:
    """Return an entry as one line of JSON; a value that JSON has no word for is its text."""
    try:
        return msgspec.json.encode(entry, enc_hook=str).decode()
    except UnicodeEncodeError:
        # Half a pair of UTF-16, or bytes of a file's name that were no UTF-8.
        return msgspec.json.encode(_spelled(msgspec.to_builtins(entry, str_keys=True, enc_hook=str))).decode()


def _spelled(value: object) -> object:
    r"""Return plain data with what UTF-8 cannot encode spelled in its text (``\udcff``)."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_spelled(key): _spelled(each) for key, each in value.items()}
        case list() | tuple():
            return [_spelled(each) for each in value]
        case _:
            return value
