"""Which store settings name, opened: the same for the daemon and for a broker inside a program."""

from tq.broker.config import BrokerSettings
from tq.core.errors import ConfigError
from tq.core.times import DurationMs
from tq.store.base import OPEN_FILES_MAX, Durability, Store
from tq.store.memory import MemoryStore


def check_installed(settings: BrokerSettings) -> None:
    """Make sure that the store which *settings* name can be opened here.

    Raises:
        ConfigError: It is not installed.
    """
    if settings.store == "memory":
        return
    try:
        import tq.store.rocks  # noqa: F401, PLC0415 - an extra that may be absent.
    except ModuleNotFoundError as error:
        if error.name != "rocksdict":
            raise
        raise ConfigError(
            "tasks on disk need the extra broker, which is not installed: pip install 'tq[broker]', "
            "or keep tasks in memory (tq-broker --store memory, App('memory:'))"
        ) from None


def open_store(settings: BrokerSettings, holder: str, open_files_max: int = OPEN_FILES_MAX) -> Store:
    """Return the store that *settings* name; it may have so many files open.

    *holder* is told to whom finds its directory open: who has it and how to join.

    Raises:
        ConfigError: It is not installed.
        StoreError: It cannot be opened.
    """
    if settings.store == "memory":
        return MemoryStore()
    check_installed(settings)
    from tq.store.rocks import RocksStore  # noqa: PLC0415 - the same.

    return RocksStore(
        settings.data,
        durability=Durability(settings.durability),
        sync_interval_ms=DurationMs(settings.sync_interval_ms),
        cache_bytes=settings.block_cache_bytes,
        open_files_max=open_files_max,
        holder=holder,
    )
