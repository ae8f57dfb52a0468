"""Connections: all that are open, and which of them speaks for which worker.

Invariant: at most one connection speaks for a worker, the last that registered as it.
"""

from collections import deque
from collections.abc import Iterator

from tq.broker.sessions import Session

# Who connects and does not say who it is holds a descriptor that others need.
HELLO_S = 10.0


class Connections:
    """The sessions of a broker, by their number and by the worker that each speaks for."""

    def __init__(self) -> None:
        self._by_number: dict[int, Session] = {}
        self._of_worker: dict[bytes, Session] = {}
        self._hellos_due: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Session]:
        """Yield those that are open now."""
        return iter(list(self._by_number.values()))

    @property
    def workers(self) -> int:
        """How many workers have a connection."""
        return len(self._of_worker)

    def add(self, session: Session, at: float) -> None:
        """Take *session* in, which was opened at *at* seconds."""
        self._by_number[session.number] = session
        self._hellos_due.append((at + HELLO_S, session.number))

    def numbered(self, number: int) -> Session | None:
        """Return the session of *number*, if it is open."""
        return self._by_number.get(number)

    def of_worker(self, worker: bytes) -> Session | None:
        """Return the session that speaks for *worker*, if one does."""
        return self._of_worker.get(worker)

    def speaks(self, session: Session) -> bool:
        """Whether *session* speaks for a worker."""
        return session.worker is not None and self._of_worker.get(session.worker) is session

    def appoint(self, session: Session, worker: bytes) -> Session | None:
        """Let *session* speak for *worker* from now on; return the one that did before."""
        former = self._of_worker.get(worker)
        session.worker = worker
        self._of_worker[worker] = session
        return former if former is not session else None

    def retire(self, session: Session) -> None:
        """Let *session* speak for no worker: it has said goodbye."""
        if self.speaks(session):
            assert session.worker is not None
            del self._of_worker[session.worker]
        session.worker = None

    def remove(self, session: Session) -> bytes | None:
        """Forget *session*; return the worker for which nobody speaks now."""
        self._by_number.pop(session.number, None)
        worker = session.worker if self.speaks(session) else None
        self.retire(session)
        return worker

    def silent(self, at: float) -> list[Session]:
        """Return those that have not said hello in time, each once."""
        found = []
        while self._hellos_due and self._hellos_due[0][0] <= at:
            session = self._by_number.get(self._hellos_due.popleft()[1])
            # One whose hello waits for its turn has spoken: it is the broker that is late.
            if session is not None and session.conn.role is None and not session.inbox:
                found.append(session)
        return found
