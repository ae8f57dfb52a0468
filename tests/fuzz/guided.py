"""`make fuzz-guided`: the attacks of `make fuzz`, steered by what they cover of the code.

    python -m tests.fuzz.guided broker -runs=1000000           a target of tests.fuzz.run, and libFuzzer's own words
    python -m tests.fuzz.guided broker .fuzz/broker/crash-...   one input again

Atheris (https://github.com/google/atheris) counts the branches that each input takes in tq and keeps
those that take a new one; the inputs are the dice by which frames are made and harmed.  What has been
found is kept in `.fuzz/TARGET`, and the next run goes on from there.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tq"]):
    from tests.fuzz.run import TARGETS, quiet

from tests.fuzz.dice import BytesDice

_KEPT = Path(".fuzz")
# Of one input: a few connections. Longer ones cover no more and take longer.
_FRAMES = {"broker": 30, "client": 30, "service": 100}
_BYTES_MAX = 4_096
# For an input; the slowest take some ten milliseconds.
_SECONDS_MAX = 30


def main() -> None:
    """Fuzz one target, until libFuzzer has had its runs or an input fails; it ends the process itself."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.guided {{{','.join(TARGETS)}}} [-runs=N] [...]")
    program, target, *words = sys.argv
    quiet()
    kept = _KEPT / target
    kept.mkdir(parents=True, exist_ok=True)
    attack, frames = TARGETS[target], _FRAMES[target]
    corpus = [] if any(Path(word).is_file() for word in words) else [str(kept)]
    limits = [f"-max_len={_BYTES_MAX}", f"-timeout={_SECONDS_MAX}", f"-artifact_prefix={kept}/"]

    def attack_by(data: bytes) -> None:
        attack(BytesDice(data), frames)

    atheris.Setup([program, *limits, *words, *corpus], attack_by)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
