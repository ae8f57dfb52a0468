"""What a broker can be told: one field a setting, with its unit, its bounds and its help.

`tq.bin.settings` fills the struct from flags, environment and file; a program that embeds
a broker builds it in code.  A name's last word is its unit, where it has one.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from tq.core.errors import ConfigError
from tq.core.limits import FRAME_BYTES_MAX, PAYLOAD_BYTES_DEFAULT_MAX, PAYLOAD_BYTES_LIMIT
from tq.core.times import DAY, HOUR, MINUTE, SECOND

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB
_TIB = 1024 * _GIB

_STORAGE = {"group": "Storage"}
_NETWORK = {"group": "Network"}
_WORKERS = {"group": "Workers"}
_KEPT = {"group": "What is kept"}
_LOG = {"group": "Log"}


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a broker can be told.

    Raises:
        ValueError: Two settings contradict each other, or ``listen`` is not an address.
    """

    data: Annotated[
        Path, Meta(description="Directory that holds the tasks; made if it is missing.", extra=_STORAGE)
    ] = Path("tq-data")
    store: Annotated[
        Literal["rocksdb", "memory"],
        Meta(description="Keep tasks on disk (rocksdb), or lose them all with the process.", extra=_STORAGE),
    ] = "rocksdb"
    durability: Annotated[
        Literal["sync", "interval", "none"],
        Meta(description="When an acknowledged change is on disk.", extra=_STORAGE),
    ] = "sync"
    sync_interval_ms: Annotated[
        int,
        Meta(ge=1, le=MINUTE, description="Time between two syncs with durability interval.", extra=_STORAGE),
    ] = 50
    disk_reserve_bytes: Annotated[
        int,
        Meta(
            ge=16 * _MIB,
            le=_TIB,
            description="With less free disk than this, new tasks are refused; what runs may still end.",
            extra=_STORAGE,
        ),
    ] = 256 * _MIB
    block_cache_bytes: Annotated[
        int,
        Meta(ge=_MIB, le=_TIB, description="Memory for RocksDB's cache of what it reads.", extra=_STORAGE),
    ] = 64 * _MIB

    listen: Annotated[
        str,
        Meta(
            description="Address to listen on, HOST:PORT; port 0 takes a free one, printed at the start.",
            extra=_NETWORK,
        ),
    ] = "127.0.0.1:7766"
    insecure: Annotated[
        bool,
        Meta(
            description="Listen beyond this machine, although whoever reaches the port rules the broker.",
            extra=_NETWORK,
        ),
    ] = False
    connections_max: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Connections at a time; more are refused.", extra=_NETWORK),
    ] = 10_000
    payload_bytes_max: Annotated[
        int,
        Meta(
            ge=_KIB,
            le=PAYLOAD_BYTES_LIMIT,
            description="Longest encoded arguments, and longest result, of one task.",
            extra=_NETWORK,
        ),
    ] = PAYLOAD_BYTES_DEFAULT_MAX
    frame_bytes_max: Annotated[
        int,
        Meta(
            ge=64 * _KIB,
            le=FRAME_BYTES_MAX,
            description="Longest message read; at least twice payload_bytes_max.",
            extra=_NETWORK,
        ),
    ] = FRAME_BYTES_MAX
    connection_bytes_max: Annotated[
        int,
        Meta(
            ge=2 * _MIB,
            le=_GIB,
            description="Memory for one connection's unanswered requests; past it, it is not read from.",
            extra=_NETWORK,
        ),
    ] = 4 * _MIB
    buffer_bytes_max: Annotated[
        int,
        Meta(
            ge=16 * _MIB,
            le=_TIB,
            description="Memory for the unanswered requests of all connections; past it, clients must wait.",
            extra=_NETWORK,
        ),
    ] = 256 * _MIB
    drain_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=HOUR,
            description="How long a stop waits for requests under way to be answered.",
            extra=_NETWORK,
        ),
    ] = 10 * SECOND

    heartbeat_ms: Annotated[
        int, Meta(ge=100, le=MINUTE, description="Time between a worker's heartbeats.", extra=_WORKERS)
    ] = 2 * SECOND
    lease_ms: Annotated[
        int,
        Meta(
            ge=500,
            le=HOUR,
            description="Silence after which a worker loses its tasks; at least twice heartbeat_ms.",
            extra=_WORKERS,
        ),
    ] = 10 * SECOND

    frame_memory_ms: Annotated[
        int,
        Meta(
            ge=MINUTE,
            le=DAY,
            description="How long an enqueue may be sent again and not make a second task.",
            extra=_KEPT,
        ),
    ] = HOUR
    dead_retention_ms: Annotated[
        int,
        Meta(ge=MINUTE, le=3_650 * DAY, description="How long a dead letter is kept.", extra=_KEPT),
    ] = 30 * DAY
    queues_max: Annotated[int, Meta(ge=1, le=10_000_000, description="Queues that may exist.", extra=_KEPT)] = 100_000

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe entry that is logged (on standard error).", extra=_LOG),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"],
        Meta(description="Lines for people, or one JSON object a line.", extra=_LOG),
    ] = "console"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        parse_address(self.listen)
        if self.store == "rocksdb" and not _is_utf_8(self.data):
            raise ConfigError(f"data must be a path that UTF-8 can encode; got {str(self.data)!r}")
        if self.lease_ms < 2 * self.heartbeat_ms:
            raise ValueError(
                f"lease_ms must be at least twice heartbeat_ms ({self.heartbeat_ms}), "
                f"so that one late heartbeat loses no task; got {self.lease_ms}"
            )
        if self.frame_bytes_max < 2 * self.payload_bytes_max:
            raise ValueError(
                f"frame_bytes_max must be at least twice payload_bytes_max ({self.payload_bytes_max}), "
                f"so that every allowed task fits into a message; got {self.frame_bytes_max}"
            )
        if self.buffer_bytes_max < self.connection_bytes_max:
            raise ValueError(
                "buffer_bytes_max, for all connections, must be at least connection_bytes_max "
                f"({self.connection_bytes_max}), for one; got {self.buffer_bytes_max}"
            )


def _is_utf_8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address written ``HOST:PORT``, an IPv6 host in brackets.

    Raises:
        ValueError: *text* is not of that form, or the port is not 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_bracketed = host == f"[{bare}]"
    if not colon or not bare or (":" in bare) != is_bracketed:
        raise ValueError(f"listen must be HOST:PORT, such as 127.0.0.1:7766 or [::1]:7766; got {text!r}")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"listen must end in a port, 0 to 65535; got {text!r}")
    return Address(bare, int(port))


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach *host*; of a name other than localhost, nobody knows."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(settings: BrokerSettings) -> str | None:
    """Return None when only this machine can reach the broker, else the warning to give.

    Raises:
        ConfigError: Others could reach it, and nobody said ``insecure``.
    """
    address = parse_address(settings.listen)
    if is_loopback(address.host):
        return None
    if not settings.insecure:
        raise ConfigError(
            f"listen {settings.listen} can be reached from other machines, and this version authenticates "
            f"nobody: whoever reaches the port can read, run and drop every task. Listen on "
            f"127.0.0.1:{address.port}, or, on a network you trust, add --insecure"
        )
    return (
        f"INSECURE: {settings.listen} can be reached from other machines and authenticates nobody: "
        "whoever reaches the port can read, run and drop every task"
    )
