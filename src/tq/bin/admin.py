"""tq-admin: asks a running broker, and tells it what to do, from the command line."""

import sys
from collections.abc import Sequence
from functools import partial

from cyclopts import App, CycloptsError

from tq.admin.config import AdminSettings
from tq.admin.program import add_commands, run, tell
from tq.bin.flags import program_of_commands
from tq.bin.output import write_out
from tq.bin.settings import Loaded
from tq.core.errors import ConfigError

PURPOSE = "Ask a running broker what it holds and does, and tell it what to do."

EXAMPLES = """\
    tq-admin ping
    tq-admin queues
    tq-admin queue purge mail --yes
    tq-admin tasks --state running --limit 10
    tq-admin dead list --queue mail --json
    tq-admin dead redrive --queue mail
    tq-admin --url tq://10.0.0.5:7766 task show ID

Exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 no broker answered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tq-admin with *arguments* (default: this process's) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    app = program_of_commands("tq-admin", AdminSettings, _run, purpose=PURPOSE, examples=EXAMPLES)
    add_commands(app)
    try:
        code = app.meta(words)
    except (ConfigError, CycloptsError) as error:
        # The settings are not known, so whether JSON is wanted is read off the command line itself.
        return tell(error, as_json="--json" in words)
    return code if isinstance(code, int) else 0


def _run(app: App, loaded: Loaded[AdminSettings], words: Sequence[str]) -> int:
    return run(app, words, loaded.settings, partial(write_out, "tq-admin"))


if __name__ == "__main__":
    sys.exit(main())
