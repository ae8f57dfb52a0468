"""A batch: the changes of many commands, and what is said once they are durable.

Invariant: nothing in ``spoken`` or in the outward part of ``changes`` is written to a
connection before the batch is committed.
"""

from itertools import islice

from tq.broker.sessions import Session
from tq.engine.changes import Changes

# One batch is one record of a replicated log, which may hold 1 MiB: so much may be written when the last command
# adds at most half of that, and what is handed out an eighth.
WRITTEN_BYTES_MAX = 320 * 1024
WRITES_MAX = 8_000
# What is asked, and what is answered, is in memory until the batch is durable.
ASKED_BYTES_MAX = 512 * 1024
SAID_BYTES_MAX = 1024 * 1024


class Batch:
    """One batch under construction.

    ``is_barrier``: it is committed though it may write nothing, since a reply tells that the
    store has answered.  ``has_clients``: a client has had a turn in it.
    """

    __slots__ = (
        "_measured",
        "_written_bytes",
        "asked_bytes",
        "changes",
        "closing",
        "has_clients",
        "is_barrier",
        "said_bytes",
        "spoken",
    )

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.asked_bytes = 0
        self.said_bytes = 0
        self.is_barrier = False
        self.has_clients = False
        self.spoken: dict[Session, list[bytes | bytearray]] = {}
        self.closing: list[Session] = []
        self._measured = 0
        self._written_bytes = 0

    def say(self, session: Session, data: bytes | bytearray) -> None:
        """Let *data* go to *session* once the batch is durable."""
        self.said_bytes += len(data)
        said = self.spoken.get(session)
        if said is None:
            self.spoken[session] = [data]
        else:
            said.append(data)

    @property
    def full(self) -> bool:
        """Whether it takes no further requests, heartbeats apart."""
        return self.is_filled(1)

    def is_filled(self, parts: int) -> bool:
        """Whether one of so many equal *parts* of what it may hold is used."""
        return (
            self.asked_bytes * parts >= ASKED_BYTES_MAX
            or self.said_bytes * parts >= SAID_BYTES_MAX
            or len(self.changes.writes) * parts >= WRITES_MAX
            or self.written_bytes * parts >= WRITTEN_BYTES_MAX
        )

    @property
    def written_bytes(self) -> int:
        """How many bytes of keys and values are written so far; a row written again counts as it was at first."""
        writes = self.changes.writes
        fresh = len(writes) - self._measured
        if fresh:
            # The newest keys of a dict are its last.
            for key, value in islice(reversed(writes.items()), fresh):
                self._written_bytes += len(key) + (len(value) if value is not None else 0)
            self._measured = len(writes)
        return self._written_bytes

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit and nothing to say."""
        changes = self.changes
        return not (
            changes.writes or self.spoken or self.closing
            or changes.deliveries or changes.endings or changes.revocations or changes.expelled
        )  # fmt: skip
