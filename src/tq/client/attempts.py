"""How a link gets its next connection and what it makes of the end of one: decisions, without I/O.

Invariant: an `Attempts` ends, in a connection or in one error that says what was tried.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tq.core.errors import BrokerError, BrokerUnavailable, ConnectionLost, RemoteProtocolError
from tq.protocol.reconnect import wait_before
from tq.protocol.session import NotABroker

NOT_WELCOMED = "connected, but not welcomed: what listens there may be no tq-broker"


@runtime_checkable
class Owned(Protocol):
    """A dialer that can tell which process is at the other end."""

    def owner(self) -> str | None:
        """Return who it is, in a clause; None where nobody can tell."""


class Attempts:
    """One bounded series of dials.

    *failures* counts what failed in a row before it: with any, the first dial waits too.
    """

    def __init__(self, now: float, timeout_s: float, failures: int, entropy: Callable[[int], bytes]) -> None:
        self.deadline = now + timeout_s
        self.timeout_s = timeout_s
        self._failures = failures
        self._entropy = entropy
        self._tries = 0
        self._trouble = ""

    def failed(self, trouble: str) -> None:
        """Note why a dial led to no connection; a *trouble* that is a whole sentence says itself what to do."""
        self._trouble = trouble
        self._failures += 1

    def wait(self, now: float) -> float:
        """Return the seconds to wait before the next dial.

        Raises:
            BrokerUnavailable: The time is over.
        """
        wait: float | None = 0.0
        if self._failures:
            draw = int.from_bytes(self._entropy(4), "big") / (1 << 32)
            wait = wait_before(self._failures, draw, now, self.deadline)
        if wait is None:
            raise self.unavailable(spell_seconds(self.timeout_s))
        self._tries += 1
        return wait

    def unavailable(self, limit: str) -> BrokerUnavailable:
        """Return the error for a caller whose *limit* is over."""
        trouble = f"the last said: {self._trouble}" if self._trouble else "none has been answered"
        tries = "1 try" if self._tries == 1 else f"{self._tries} tries"
        end = "" if trouble.endswith(".") else ". Is tq-broker running?"
        return BrokerUnavailable(f"no broker within {limit}, {tries}; {trouble}{end}")


def trouble_of(error: Exception, dialer: object) -> str:
    """Return what kept a dial by *dialer* from being welcomed, with who was silent where that can be told."""
    owner = dialer.owner() if str(error) == NOT_WELCOMED and isinstance(dialer, Owned) else None
    return str(error) if owner is None else f"{owner}, and does not answer: it is suspended or very busy."


def spell_seconds(seconds: float) -> str:
    """Return a time for a reader: what is left of 2 s after a few microseconds is still 2 s."""
    return f"{round(seconds, 3):g} s"


def failures_after(failures: int, *, has_answered: bool, is_going_away: bool) -> int:
    """Return how many failures in a row there are after the end of a connection.

    One that has answered anything clears those before it.  After one that never did, or
    whose broker is going away, the next dial waits: it would likely meet the same end.
    """
    before = 0 if has_answered else failures
    return before + (is_going_away or not has_answered)


def as_loss(error: BrokerError | RemoteProtocolError) -> Exception:
    """Return what a dismissal means to the requests that were open: to be sent again, or of no use anywhere."""
    if isinstance(error, BrokerError) and error.retryable:
        return ConnectionLost(f"the broker ended the connection: {error}")
    if isinstance(error, NotABroker):
        return ConnectionLost(str(error))
    return error
