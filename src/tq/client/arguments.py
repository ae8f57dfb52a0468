"""Arguments: what a caller gives a client, looked at before anything is sent.

A broker ends a connection that brings it what it cannot read, and all callers of a
process share one.  Invariant: what passes here, the broker can read.
"""

import math
import re
from collections.abc import Iterable

import msgspec

from tq.core.errors import InvalidArgument, RemoteProtocolError, UsageError
from tq.core.ids import ID_BYTES, TaskId
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import HEADER_BYTES
from tq.protocol.messages import TYPE_OF

# Where msgspec has found something: the number of the field, and the place inside of it.
_PLACE = re.compile(r" - at `\$\[(\d+)\](.*)`")


def check_readable(message: msgspec.Struct) -> None:
    """Raise what a broker would make of *message* that it cannot read.

    It costs as much as encoding and decoding it: not for frames of many tasks, whose
    parts are checked as they are put in.

    Raises:
        InvalidArgument: A field of it is of another type than it has to be.
    """
    try:
        frame = encode_message(message, 0)
    except (OverflowError, TypeError, ValueError):
        return  # the session says what is wrong with it, before it sends anything
    try:
        decode_message(TYPE_OF[type(message)], bytes(frame[HEADER_BYTES:]))
    except RemoteProtocolError as error:
        text = _PLACE.sub(lambda place: f" in {_field(message, int(place[1]))}{place[2]}", str(error))
        raise InvalidArgument(text.replace("cannot be decoded", "cannot be sent").replace("`", "")) from None


def _field(message: msgspec.Struct, number: int) -> str:
    return type(message).__struct_fields__[number]


def checked_ids(task_ids: Iterable[TaskId]) -> list[TaskId]:
    """Return *task_ids*, each of which can be one.

    Raises:
        UsageError: One cannot: it is its text, for instance.
    """
    ids = list(task_ids)
    for task_id in ids:
        if type(task_id) is not bytes or len(task_id) != ID_BYTES:
            raise UsageError(
                f"a task id is {ID_BYTES} bytes, as enqueue returns it; got {task_id!r}. "
                "For its text there are App.handle and tq.core.ids.parse_id"
            )
    return ids


def deadline_after(timeout: float | None, now: float) -> float | None:
    """Return the time *timeout* seconds from *now*; None for None, as long as it takes.

    Raises:
        UsageError: *timeout* is no number.
    """
    if timeout is None:
        return None
    try:
        deadline = now + timeout
    except (OverflowError, TypeError):  # text, or an int that no float holds
        deadline = math.nan
    if math.isnan(deadline):
        raise UsageError(f"a timeout is a number of seconds, or None for as long as it takes; got {timeout!r}")
    return deadline
