"""tq-broker on a machine whose wall clock is off by what a file says, and may jump."""

import os
import sys
from pathlib import Path

OFFSET_VARIABLE = "ACCEPTANCE_CLOCK_OFFSET"


def main() -> int:
    """Run tq-broker; its wall clock is off by the milliseconds that the file of `OFFSET_VARIABLE` holds."""
    from tq.bin import broker  # noqa: PLC0415 - only in its own process
    from tq.broker import sources  # noqa: PLC0415

    offset = Path(os.environ[OFFSET_VARIABLE])
    honest = sources._wall_clock_ms

    def wall_clock_ms() -> int:
        return honest() + (int(offset.read_text()) if offset.exists() else 0)

    sources._wall_clock_ms = wall_clock_ms
    return broker.main()


if __name__ == "__main__":
    sys.exit(main())
