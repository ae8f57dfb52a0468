"""A batch: the changes of many commands, and what is said once they are durable.

Invariant: nothing in ``spoken`` or in the outward part of ``changes`` is written to a
connection before the batch is committed.
"""

from tq.broker.sessions import Session
from tq.core.outcome import TaskResult
from tq.engine.changes import Changes

# One batch is one record of a replicated log, which may hold 1 MiB; the last command may add half of that.
BYTES_MAX = 512 * 1024
WRITES_MAX = 8_000
# What a result takes in a frame besides its value and the text of its failure, at most.
_RESULT_BYTES = 512


class Batch:
    """One batch under construction."""

    __slots__ = ("bytes_in", "changes", "closing", "spoken")

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.bytes_in = 0
        self.spoken: dict[Session, list[bytes | bytearray]] = {}
        self.closing: list[Session] = []

    def say(self, session: Session, data: bytes | bytearray) -> None:
        """Let *data* go to *session* once the batch is durable."""
        said = self.spoken.get(session)
        if said is None:
            self.spoken[session] = [data]
        else:
            said.append(data)

    @property
    def full(self) -> bool:
        """Whether it takes no further requests of clients."""
        return self.bytes_in >= BYTES_MAX or len(self.changes.writes) >= WRITES_MAX

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit and nothing to say."""
        changes = self.changes
        return not (
            changes.writes or self.spoken or self.closing
            or changes.deliveries or changes.endings or changes.revocations or changes.expelled
        )  # fmt: skip


def in_frames(results: list[TaskResult], bytes_max: int) -> list[list[TaskResult]]:
    """Cut *results* into lists that fit into a frame each."""
    parts: list[list[TaskResult]] = [[]]
    size = 0
    for result in results:
        about = len(result.result or b"") + _RESULT_BYTES
        if result.failure is not None:
            # A character takes up to four bytes.
            about += 4 * (len(result.failure.message) + len(result.failure.traceback) + len(result.failure.type))
        if parts[-1] and size + about > bytes_max // 2:
            parts.append([])
            size = 0
        parts[-1].append(result)
        size += about
    return parts
