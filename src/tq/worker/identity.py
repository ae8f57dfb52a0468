"""Who a worker is to the broker: a session and its secret, shared by its two connections.

Invariant: session and secret change together, and only when the broker no longer knows
the session; they are read by the heartbeat thread while the event loop may renew them.
"""

from collections.abc import Callable
from typing import NamedTuple

_BYTES = 16


class Credentials(NamedTuple):
    """The session, which may be shown, and its secret, which may not."""

    session: bytes
    secret: bytes


class Identity:
    """The worker's current credentials; *entropy(n)* returns n random bytes."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self.renew()

    def renew(self) -> None:
        """Become a new worker to the broker."""
        # One reference is replaced, so that no reader sees a session with another one's secret.
        self.credentials = Credentials(self._entropy(_BYTES), self._entropy(_BYTES))
