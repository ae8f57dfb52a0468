"""How much memory a process holds."""

import subprocess
import sys

from tq.worker.pools.memory import _peak_bytes, resident_bytes

_KEPT_BYTES = 64 * 1024 * 1024
# In a process of its own: in this one, what other tests have left may be given back at the same moment.
_PROGRAM = f"""
from tq.worker.pools.memory import resident_bytes
before = resident_bytes()
kept = b"x" * {_KEPT_BYTES}
print(resident_bytes() - before)
"""


def test_what_a_process_holds_grows_with_what_it_keeps() -> None:
    printed = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True).stdout

    assert int(printed) > _KEPT_BYTES // 2


def test_the_peak_is_no_less_than_what_is_held() -> None:
    # The two are not counted at the same instant, nor to the page.
    assert _peak_bytes() > resident_bytes() * 0.8
