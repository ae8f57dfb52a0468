"""How long an engine takes to take up the rows of a data directory, as at a restart or a change of leader.

python -m bench.depth.restore DATA      ->  0.012
"""

import sys
import time
from pathlib import Path

from tq.engine.engine import Engine, EngineSettings
from tq.store.base import Durability
from tq.store.rocks import RocksStore


def main() -> None:
    """Print the seconds; what the engine would write is not committed."""
    store = RocksStore(Path(sys.argv[1]), durability=Durability.NONE)
    try:
        began = time.perf_counter()
        Engine(store, EngineSettings(), lambda: 0.5).restore(int(time.time() * 1_000))
        print(time.perf_counter() - began)
    finally:
        store.close()


if __name__ == "__main__":
    main()
