"""tq-broker on a machine whose disk takes tables slowly, so that RocksDB stops those who write."""

import sys

from rocksdict import Options


def main() -> int:
    """Run tq-broker; tables are written at four megabytes a second, and little may wait for it in memory."""
    from tq.bin import broker  # noqa: PLC0415 - only in its own process
    from tq.store import rocks  # noqa: PLC0415 - the same

    usual = rocks._options

    def options(cache_bytes: int, open_files_max: int, *, create: bool) -> Options:
        made = usual(cache_bytes, open_files_max, create=create)
        made.set_write_buffer_size(1 << 20)
        made.set_level_zero_file_num_compaction_trigger(2)
        made.set_level_zero_slowdown_writes_trigger(3)
        made.set_level_zero_stop_writes_trigger(6)
        made.set_ratelimiter(4_000_000, 100_000, 10)
        return made

    rocks._options = options
    return broker.main()


if __name__ == "__main__":
    sys.exit(main())
