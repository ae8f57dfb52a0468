"""The simulator's command line: seed after seed, until one fails.

    python -m tq.testing.simulate --seeds 100       the seeds 0 to 99
    python -m tq.testing.simulate --seeds 0         until a failure, or Ctrl-C
    python -m tq.testing.simulate --seeds 1 --first 4711

Exit code 1 and the trace on standard error if a seed fails.
"""

import logging
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from itertools import count

from tq.testing.simulator import SimulationFailed, simulate

_SEEDS = 30
_SAID_EVERY_S = 10.0


def main(words: Sequence[str] | None = None) -> int:
    """Run the seeds that *words* ask for; return the exit code."""
    parser = ArgumentParser(
        prog="python -m tq.testing.simulate",
        description="Run whole simulated systems, broker, workers and clients, under faults drawn from seeds.",
    )
    parser.add_argument("--seeds", type=int, default=_SEEDS, help=f"how many (default {_SEEDS}); 0: until one fails")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    asked = parser.parse_args(words)
    seeds = range(asked.first, asked.first + asked.seeds) if asked.seeds else count(asked.first)
    began = said = time.monotonic()
    done = 0
    try:
        for seed in seeds:
            simulate(seed)
            done += 1
            if (now := time.monotonic()) - said > _SAID_EVERY_S:
                said = now
                print(f"{done} seeds passed, the last was {seed}", flush=True)
    except SimulationFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    print(f"{done} seeds passed in {time.monotonic() - began:.1f} s, from {asked.first}")
    return 0


if __name__ == "__main__":
    # Workers that lose their broker say so, as they should; the trace has it.
    logging.getLogger("tq").setLevel(logging.CRITICAL)
    sys.exit(main())
