"""Turns: whose requests are served when, and how much of them at a time.

    urgent   workers and keepers: all they ask, first
    waiting  clients: `TURN_BYTES` each, then the next one's, as long as the batch and the loop have room

Workers that fill a batch leave nothing of it to clients; in the next one these come first, with a share.

Invariant: a session is in one of the two lines at most, and leaves it only to be served; a
heartbeat is served even when the batch is full, since it writes nothing; of two batches that
workers fill, clients that wait have a turn in one, unless the store is behind.
"""

from collections import deque
from collections.abc import Callable

from tq.broker.batch import Batch
from tq.broker.commit import GroupCommit
from tq.broker.pressure import Pressure
from tq.broker.requests import ANSWERS, Answering, Unfinished
from tq.broker.sessions import Session
from tq.broker.sources import Log
from tq.core.errors import BrokerError, RemoteProtocolError
from tq.protocol.connection import Request
from tq.protocol.messages import Type
from tq.protocol.states import ConnectionState

# Connections take turns: so much of one client's requests, then the next client's.
TURN_BYTES = 64 * 1024
# Clients that come first have this part of the batch before workers do.
_CLIENTS_PARTS = 4
# After so long the loop gets to read its sockets again.
_TURN_S_MAX = 0.005


class Turns:
    """Serves sessions in turn, each request into the batch that *commit* is building.

    *host* answers requests; *forget* gets each session that is gone once all it said is served.
    """

    def __init__(
        self,
        host: Answering,
        commit: GroupCommit,
        pressure: Pressure,
        monotonic: Callable[[], float],
        log: Log,
        *,
        forget: Callable[[Session], None],
    ) -> None:
        self._host = host
        self._commit = commit
        self._pressure = pressure
        self._monotonic = monotonic
        self._log = log
        self._forget = forget
        self._urgent: deque[Session] = deque()
        self._waiting: deque[Session] = deque()
        # Whether the last batch had no room for them.
        self._clients_first = False
        # Whose request did not fit into one batch.
        self._unfinished: dict[Session, None] = {}

    def add(self, session: Session) -> None:
        """Put *session* into its line, unless it is there."""
        if not session.queued:
            session.queued = True
            (self._urgent if session.urgent else self._waiting).append(session)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits to be served."""
        return not (self._urgent or self._waiting)

    @property
    def may_go_on(self) -> bool:
        """Whether somebody waits who could be served now, into the batch as it is."""
        waits = bool(self._urgent or (self._waiting and not self._pressure.held_back))
        return waits and not self._commit.batch.full

    def take_up_unfinished(self) -> None:
        """Let those go on whose request did not fit, once the batch that it filled is on its way."""
        if self._unfinished and not self._commit.batch.changes.settled_bytes:
            unfinished, self._unfinished = self._unfinished, {}
            for session in unfinished:
                self.add(session)

    def serve(self, now: int) -> None:
        """Serve workers whole, then clients in turns, until the batch is full or the loop must read again.

        Clients that the last batch had no room for have a share of this one first.  ``now`` is the engine's time.
        """
        batch = self._commit.batch
        if self._clients_first:
            self._serve_clients(batch, now, _CLIENTS_PARTS)
        for _ in range(len(self._urgent)):
            session = self._urgent.popleft()
            if batch.full and not _is_heartbeat_next(session):
                self._urgent.append(session)
                continue
            session.queued = False
            self._serve_one(session, batch, now, None)
        self._serve_clients(batch, now, 1)
        self._clients_first = bool(self._waiting) and batch.full and not batch.has_clients

    def _serve_clients(self, batch: Batch, now: int, parts: int) -> None:
        """Serve clients until one of so many *parts* of the batch is used, or the loop must read again."""
        if not self._waiting:
            return
        until = self._monotonic() + _TURN_S_MAX
        while self._waiting and not batch.is_filled(parts) and not self._pressure.held_back:
            session = self._waiting.popleft()
            session.queued = False
            batch.has_clients = True
            self._serve_one(session, batch, now, until)
            if self._waiting and self._monotonic() >= until:
                break

    def _serve_one(self, session: Session, batch: Batch, now: int, until: float | None) -> None:
        """Give *session* its turn: a client so many bytes and so long, a worker or keeper all that the batch takes.

        *until* is the instant at which a client's turn ends.
        """
        if session.is_gone and not session.asks:
            # What it had said last was served by then, or was dropped with its inbox.
            self._forget(session)
            return
        served = 0
        bytes_max = session.inbox_bytes if until is None else TURN_BYTES
        is_done = is_first = True
        if session.unfinished is not None:
            request, session.unfinished = session.unfinished, None
            is_done, is_first = self._answer(session, request, batch, now), False
        conn = session.conn
        while is_done and session.inbox and served < bytes_max and session.may_speak:
            # For the first, `serve` has looked.
            if not is_first and self._is_over(batch, session, until):
                break
            is_first = False
            try:
                request = conn.decode(session.take())
            except RemoteProtocolError as violation:
                session.violation = violation
                break
            served += request.size
            is_done = self._answer(session, request, batch, now)
            if conn.state is ConnectionState.CLOSING:
                batch.closing.append(session)
                session.void()
                break
        if not is_done:
            self._unfinished[session] = None
            return
        if session.violation is not None:
            self._dismiss(session, session.violation, batch)
        if session.is_gone and not session.inbox:
            self._forget(session)
        elif session.inbox and session.may_speak:
            self.add(session)

    def _is_over(self, batch: Batch, session: Session, until: float | None) -> bool:
        """Whether a turn ends here: the batch is full, or the time is over."""
        if batch.full and not _is_heartbeat_next(session):
            return True
        return until is not None and self._monotonic() >= until

    def _answer(self, session: Session, request: Request, batch: Batch, now: int) -> bool:
        """Answer *request*; False if the batch has no room for all of it, and the rest is for the next."""
        batch.asked_bytes += request.size
        try:
            reply = ANSWERS[request.kind](self._host, session, request.message, now, batch.changes)
            if isinstance(reply, Unfinished):
                session.unfinished = request._replace(message=reply.rest, size=0)
                return False
            data = None if reply is None else session.conn.reply(request.correlation, reply)
        except BrokerError as error:
            if request.correlation:
                batch.say(session, session.conn.refuse(request.correlation, error))
            else:
                batch.say(session, session.dismiss(error))
            return True
        if data is None:
            return True
        if request.kind is Type.HEARTBEAT and session.has_spoken:
            session.write(data)  # it promises nothing that a stalled disk could delay
        else:
            batch.say(session, data)
        return True

    def _dismiss(self, session: Session, violation: RemoteProtocolError, batch: Batch) -> None:
        self._log.warning("connection.violation", peer=session.peer, error=str(violation))
        batch.say(session, session.conn.last_words)
        batch.closing.append(session)
        session.violation = None
        session.void()


def _is_heartbeat_next(session: Session) -> bool:
    return session.unfinished is None and bool(session.inbox) and session.inbox[0].kind == Type.HEARTBEAT
