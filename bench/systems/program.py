"""The program of an adapter, in the system's own environment: its client, or one of its workers.

    python -m bench.systems.program NAME client noop|noop_plain|noop_kept
    python -m bench.systems.program NAME worker one|two|threads|processes

Invariant: an adapter is imported by its own name, so that its tasks have the same names in both.
"""

import sys
from importlib import import_module

from bench.systems.client import serve


def main() -> None:
    """Run what the command line says."""
    name, role, what = sys.argv[1:]
    adapter = import_module(f"bench.systems.{name}")
    if role == "client":
        serve(adapter.client(what))
    else:
        adapter.work(what)


if __name__ == "__main__":
    main()
