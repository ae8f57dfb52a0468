"""Workers: who is connected, who is alive, how much each holds and wants.

A worker is one start of one process: a random session and a secret, made by itself and
kept over reconnects.  Its leases hang on its heartbeats, not on its connection.  One whose
heartbeats say for as long as a lease that its event loop does not turn is *stalled*: what
it has not started is of more use elsewhere, and it gets nothing more until it turns again.
Invariant: ``held_tasks`` and ``held_bytes`` count exactly the tasks under its leases.
"""

from hashlib import sha256

from tq.core.errors import InvalidArgument, SessionUnknown
from tq.core.ids import ID_BYTES
from tq.core.worker import WorkerInfo
from tq.engine.changes import Changes, Reader, all_rows
from tq.engine.flows import QueuedTask
from tq.engine.rows import WORKER, WorkerRow, decode_worker, encode_row

# What a worker holds is in the broker's memory too, so that a worker alone does not say how much that may be.
WINDOW_TASKS_MAX = 20_000
WINDOW_BYTES_MAX = 64 * 1024 * 1024
# So much is handed to one worker in one batch; the next batch asks whether it has read that.
SENT_BYTES_MAX = 1024 * 1024


class WorkerSession:
    """One worker.

    ``isolating``: it holds a suspect alone; ``reserved``: it is being emptied for one;
    ``reads``: what it was sent does not pile up; ``sent_bytes``: handed to it in this batch;
    ``stuck``: tasks that it gave up and whose handlers still run;
    ``stuck_at``: when a heartbeat first said that its loop had not turned since the one before;
    ``relieved``: it is stalled, and all that it had not started was taken back.
    """

    __slots__ = (
        "blocked_by", "connected", "held_bytes", "held_tasks", "info", "isolating", "names", "progress", "queues",
        "reads", "registered_at", "relieved", "reserved", "secret_hash", "seen_at", "sent_bytes", "session", "stalled",
        "stuck", "stuck_at", "window_bytes", "window_tasks",
    )  # fmt: skip

    def __init__(self, session: bytes, row: WorkerRow, now: int) -> None:
        self.session = session
        self.secret_hash = row.secret_hash
        self.info = row.info
        self.names = frozenset(row.info.tasks)
        self.registered_at = row.registered_at
        self.seen_at = now
        self.connected = False
        self.blocked_by: str | None = None
        self.stuck: list[str] = []
        self.queues: list[str] = []
        self.window_tasks = 0
        self.window_bytes = 0
        self.held_tasks = 0
        self.held_bytes = 0
        self.isolating = False
        self.reserved = False
        self.reads = True
        self.sent_bytes = 0
        self.progress = -1
        self.stuck_at: int | None = None
        self.stalled = False
        self.relieved = False

    def beat(self, progress: int, now: int) -> None:
        """Note a heartbeat, and whether its loop has turned since the last."""
        self.seen_at = now
        if progress != self.progress:
            self.progress = progress
            self.turned()
        elif self.stuck_at is None:
            self.stuck_at = now

    def turned(self) -> None:
        """Note that its event loop turns."""
        self.stuck_at, self.stalled, self.relieved = None, False, False

    def hold(self, task: QueuedTask) -> None:
        """Count a task under its leases."""
        self.held_tasks += 1
        self.held_bytes += len(task.record)

    def drop(self, task: QueuedTask) -> None:
        """Count a task no longer under its leases; call it before the record changes."""
        self.held_tasks -= 1
        self.held_bytes -= len(task.record)
        if not self.held_tasks:
            self.isolating = False

    @property
    def takes(self) -> bool:
        """Whether it takes tasks, once it has room."""
        return self.connected and self.window_tasks > 0 and not self.stalled

    @property
    def open(self) -> bool:
        """Whether it may be given tasks now."""
        return (
            self.takes
            and self.reads
            and self.sent_bytes < SENT_BYTES_MAX
            and self.held_tasks < self.window_tasks
            and self.held_bytes < self.window_bytes
            and not self.isolating
        )


class Workers:
    """All workers whose leases have not run out."""

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        self._by_session: dict[bytes, WorkerSession] = {}
        # Nobody is silent or stuck for too long before.  Heartbeats only move that on, so it is looked for again
        # when it has come, not when they come.
        self._none_before: int | None = None

    def __len__(self) -> int:
        return len(self._by_session)

    def all(self) -> list[WorkerSession]:
        """Return all workers."""
        return list(self._by_session.values())

    def get(self, session: bytes) -> WorkerSession | None:
        """Return the worker of *session*, or None."""
        return self._by_session.get(session)

    def known(self, session: bytes) -> WorkerSession:
        """Return the worker of *session*.

        Raises:
            SessionUnknown: It has expired, or never was.
        """
        worker = self._by_session.get(session)
        if worker is None:
            raise SessionUnknown(f"no worker session {session.hex()}: it has expired or left; register as a new one")
        return worker

    def register(
        self, session: bytes, secret: bytes, info: WorkerInfo, now: int, changes: Changes
    ) -> tuple[WorkerSession, bool]:
        """Return the worker of *session*, and whether it was known before.

        Raises:
            InvalidArgument: Session or secret have the wrong size.
            SessionUnknown: The session exists with another secret.
        """
        if len(session) != ID_BYTES or len(secret) != ID_BYTES:
            raise InvalidArgument(f"a worker's session and secret have {ID_BYTES} random bytes each")
        secret_hash = sha256(secret).digest()
        worker = self._by_session.get(session)
        resumed = worker is not None
        if worker is None:
            row = WorkerRow(secret_hash, info, now)
            changes.writes[WORKER + session] = encode_row(row)
            worker = self._by_session[session] = WorkerSession(session, row, now)
        elif worker.secret_hash != secret_hash:
            raise SessionUnknown(f"the secret of worker session {session.hex()} is another one")
        elif info != worker.info:  # it has other handlers now
            worker.info, worker.names = info, frozenset(info.tasks)
            changes.writes[WORKER + session] = encode_row(WorkerRow(secret_hash, info, worker.registered_at))
        worker.connected = worker.reads = True
        worker.seen_at = now
        if self._none_before is None:
            self._none_before = now + self._lease_ms
        # Only its event loop registers.
        worker.turned()
        worker.window_tasks = 0
        return worker, resumed

    def check_secret(self, session: bytes, secret: bytes) -> None:
        """Make sure that who speaks for *session* knows its secret.

        Raises:
            SessionUnknown: There is no such session, or the secret is another one.
        """
        if self.known(session).secret_hash != sha256(secret).digest():
            raise SessionUnknown(f"the secret of worker session {session.hex()} is another one")

    def silent(self, now: int) -> list[WorkerSession]:
        """Return the workers whose leases have run out."""
        if self._is_early(now):
            return []
        over = now - self._lease_ms
        return [worker for worker in self._by_session.values() if worker.seen_at <= over]

    def stuck(self, now: int) -> list[WorkerSession]:
        """Return the workers that are taken for stalled and may still hold what they have not started."""
        if self._is_early(now):
            return []
        over = now - self._lease_ms
        return [
            worker
            for worker in self._by_session.values()
            if worker.stuck_at is not None and worker.stuck_at <= over and not worker.relieved
        ]

    def next_over(self, now: int) -> int | None:
        """Return an instant before which none of them will be silent or stuck for too long."""
        if not self._is_early(now):
            since = [
                worker.seen_at if worker.stuck_at is None or worker.relieved else min(worker.seen_at, worker.stuck_at)
                for worker in self._by_session.values()
            ]
            self._none_before = min(since) + self._lease_ms if since else None
        return self._none_before

    def remove(self, worker: WorkerSession, changes: Changes) -> None:
        """Forget a worker, which holds nothing any more."""
        del self._by_session[worker.session]
        changes.writes[WORKER + worker.session] = None

    def restore(self, reader: Reader, now: int) -> None:
        """Read all workers; each gets a fresh lease time in which to come back."""
        for key, value in all_rows(reader, WORKER):
            session = key[1:]
            self._by_session[session] = WorkerSession(session, decode_worker(value), now)
            self._none_before = now + self._lease_ms

    def _is_early(self, now: int) -> bool:
        return self._none_before is None or now < self._none_before
