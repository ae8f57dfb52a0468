"""What a worker can be told: one field a setting, with its unit, its bounds and its help.

`tq.bin.settings` fills the struct from flags, environment and file; a program that runs a
worker inside itself builds it in code.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from tq.core.limits import LABEL_CHARACTERS_MAX, LABELS_MAX
from tq.core.queue import check_queue_name
from tq.core.times import DAY, SECOND
from tq.protocol.endpoints import check_url

WEIGHT_MAX = 1_000
CHILDREN_MAX = 1_000

# Colons in pairs are the name's; a single one is before the weight.
_QUEUE = re.compile(r"((?:[^:]|::)*)(?::([0-9]{1,9}))?")

_WORK = {"group": "Work"}
_BROKER = {"group": "Broker"}
_CHECK = {"group": "Check"}
_LOG = {"group": "Log"}


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker can be told.

    Raises:
        ValueError: ``queues`` is not a list of queue names and weights, ``autoscale`` no range, ``labels`` is not one
            of labels, children have limits in a pool that has none, or a burst is to reload.
        ConfigError: ``url`` is not the address of a broker.
    """

    app: Annotated[
        str,
        Meta(
            description="The app whose tasks to run, MODULE or MODULE:NAME (NAME is app if left out); "
            "the current directory is searched first.",
            extra={**_WORK, "short": "-A"},
        ),
    ]
    queues: Annotated[
        str | None,
        Meta(
            description="Queues to take tasks from, with weights if some are to get more turns: "
            "high:4,default; a colon of a name is written twice. Without it: every queue that a task of the app names.",
            extra={**_WORK, "short": "-Q"},
        ),
    ] = None
    pool: Annotated[
        Literal["async", "thread", "process"],
        Meta(
            description="Where handlers run: on the event loop (plain functions in threads beside it), "
            "all in threads, or in child processes, for CPU work and hard time limits.",
            extra={**_WORK, "short": "-P"},
        ),
    ] = "async"
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | Literal["auto"],
        Meta(
            description="Tasks at a time; auto: 100 if async, 8 if thread, the number of CPUs if process.",
            extra={**_WORK, "short": "-c"},
        ),
    ] = "auto"
    processes: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Worker processes, each with an event loop and so many tasks at a time of its own; "
            "one that dies is replaced.",
            extra=_WORK,
        ),
    ] = 1
    autoscale: Annotated[
        str | None,
        Meta(
            description="MIN:MAX child processes, by load, instead of a fixed --concurrency: one more when all are "
            "busy, one fewer when one has been idle for 30 s. Process pool only.",
            extra=_WORK,
        ),
    ] = None
    prefetch: Annotated[
        Annotated[int, Meta(ge=0, le=100_000)] | Literal["adaptive"],
        Meta(
            description="Tasks to hold ready beyond those that run; adaptive is about 50 ms of work.",
            extra=_WORK,
        ),
    ] = "adaptive"
    max_tasks_per_child: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000_000)] | Literal["unlimited"],
        Meta(
            description="Tasks that a child process runs before another takes its place; process pool only.",
            extra=_WORK,
        ),
    ] = "unlimited"
    max_memory_per_child: Annotated[
        Annotated[int, Meta(ge=1 << 20, le=1 << 50)] | Literal["unlimited"],
        Meta(
            description="Memory that a child process may hold after a task; with more, another takes its place. "
            "Process pool only.",
            extra=_WORK,
        ),
    ] = "unlimited"
    burst: Annotated[
        bool, Meta(description="End once the queues are empty, instead of waiting for more.", extra=_WORK)
    ] = False
    reload: Annotated[
        bool,
        Meta(
            description="Start anew when a Python file in the current directory changes; needs the extra reload.",
            extra=_WORK,
        ),
    ] = False
    drain_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=DAY,
            description="How long running tasks may go on in a stop before their attempt fails, and is made again.",
            extra=_WORK,
        ),
    ] = 30 * SECOND

    url: Annotated[
        str | None,
        Meta(
            description="Where the broker is, tq://HOST:PORT[,HOST:PORT] or file:DIRECTORY. "
            "Without it: what the app says.",
            extra=_BROKER,
        ),
    ] = None
    name: Annotated[
        str | None,
        Meta(
            description="What to call this worker in lists and logs. Without it: HOST-PID.",
            extra={**_BROKER, "short": "-n"},
        ),
    ] = None

    labels: Annotated[
        str | None,
        Meta(
            description="What to show of this worker in lists besides, KEY=VALUE[,KEY=VALUE]: zone=eu,gpu=a100.",
            extra=_BROKER,
        ),
    ] = None

    check: Annotated[
        bool,
        Meta(
            description="Do not work, but say whether the worker of this name works: for the probes of a container.",
            extra=_CHECK,
        ),
    ] = False
    state_file: Annotated[
        Path | None,
        Meta(
            description="Where the worker leaves its signs of life for --check. Without it: "
            "worker-NAME.json in $XDG_RUNTIME_DIR/tq, or in a directory of the user's own for temporary files; "
            "NAME is the app's where the worker has none.",
            extra=_CHECK,
        ),
    ] = None

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="Least severe entry that is logged (on standard error).",
            extra={**_LOG, "short": "-l"},
        ),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"],
        Meta(description="Lines for people, or one JSON object a line.", extra=_LOG),
    ] = "console"

    def __post_init__(self) -> None:
        """Refuse queues and addresses that cannot be meant, and limits that would not hold."""
        if self.pool != "process":
            for name in ("max_tasks_per_child", "max_memory_per_child"):
                if getattr(self, name) != "unlimited":
                    raise ValueError(f"{name}: the {self.pool} pool has no child processes; it needs pool: process")
        if self.autoscale is not None:
            if self.pool != "process" or self.concurrency != "auto":
                raise ValueError("autoscale: it needs pool: process, and takes the place of concurrency")
            parse_autoscale(self.autoscale)
        if self.reload and self.burst:
            raise ValueError("reload: a burst ends when the queues are empty; it has no time to see files change")
        if self.queues is not None:
            parse_queues(self.queues)
        parse_labels(self.labels)
        if self.url is not None:
            check_url(self.url)


class Autoscale(NamedTuple):
    """The least and the greatest number of child processes."""

    low: int
    high: int


def parse_autoscale(text: str) -> Autoscale:
    """Return the numbers written ``2:8``.

    Raises:
        ValueError: They are none, or not 1 or more, the second at least the first and at most `CHILDREN_MAX`.
    """
    low, _, high = text.partition(":")
    if all(part.isascii() and part.isdigit() for part in (low, high)) and 1 <= int(low) <= int(high) <= CHILDREN_MAX:
        return Autoscale(int(low), int(high))
    raise ValueError(f"autoscale is MIN:MAX, with 1 <= MIN <= MAX <= {CHILDREN_MAX}, as 2:8; got {text!r}")


def parse_labels(text: str | None) -> dict[str, str]:
    """Return the labels written ``zone=eu,gpu=a100``; none for None.

    Raises:
        ValueError: There are more than `LABELS_MAX`, one is no KEY=VALUE or too long, or a key comes twice.
    """
    found: dict[str, str] = {}
    for part in [] if text is None else text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals):
            raise ValueError(f"labels: {part.strip()!r} is not of the form KEY=VALUE, as in zone=eu,gpu=a100")
        for piece in (key, value):
            if len(piece) > LABEL_CHARACTERS_MAX or not piece.isprintable():
                raise ValueError(
                    f"labels: a key or value has at most {LABEL_CHARACTERS_MAX} printable characters; got {piece!r}"
                )
        if key in found:
            raise ValueError(f"labels: {key!r} is there twice in {text!r}")
        found[key] = value
    if len(found) > LABELS_MAX:
        raise ValueError(f"labels: a worker has at most {LABELS_MAX}; got {len(found)}")
    return found


class QueueWeight(NamedTuple):
    """A queue to serve, and its share of the turns relative to the others."""

    name: str
    weight: int = 1


class ServedQueues(NamedTuple):
    """The queues to serve; ``weighted`` if a weight was written, even if all are 1."""

    queues: list[QueueWeight]
    weighted: bool


def parse_queues(text: str) -> ServedQueues:
    """Return the queues written ``high:4,default``; a weight left out is 1.

    A colon of a name is written twice, ``eu::mail:3``: else a weight could not be told from the end of a name.

    Raises:
        ValueError: A name or a weight is not allowed, or a queue is named twice.
    """
    found: dict[str, QueueWeight] = {}
    weighted = False
    for part in (each.strip() for each in text.split(",")):
        written = _QUEUE.fullmatch(part)
        if written is None:
            meant = part.replace(":", "::")
            raise ValueError(
                f"queues: {part!r} is neither NAME nor NAME:WEIGHT, with a weight from 1 to {WEIGHT_MAX}; "
                f"a colon of a name is written twice: {meant}"
            )
        name, weight = written[1].replace("::", ":"), written[2]
        check_queue_name(name)
        if weight is not None:
            weighted = True
            if not 1 <= int(weight) <= WEIGHT_MAX:
                raise ValueError(f"queues: the weight of {name!r} must be 1 to {WEIGHT_MAX}; got {weight}")
        if name in found:
            raise ValueError(f"queues: {name!r} is named twice in {text!r}")
        found[name] = QueueWeight(name, int(weight or 1))
    return ServedQueues(list(found.values()), weighted)
