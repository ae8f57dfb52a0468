"""The outlet: what a batch has to say goes to its connections, once the batch is durable.

    replies, and            deliveries and revocations    results
    whoever is closed   <-  to the worker's connection <- to who waits

Invariant: one write a connection and batch, in the order in which things happened.
"""

import msgspec

from tq.broker.batch import Batch
from tq.broker.connections import Connections
from tq.core.errors import SessionUnknown
from tq.core.lease import refs_to
from tq.core.outcome import TaskResult
from tq.protocol import messages

# What a result takes in a frame besides its value and the text of its failure, at most.
_RESULT_BYTES = 512


class Outlet:
    """Says what durable batches have to say."""

    def __init__(self, connections: Connections, limits: messages.Limits) -> None:
        self._connections = connections
        self._limits = limits

    def let_out(self, batch: Batch) -> None:
        """Say what *batch* has to say: it is durable."""
        self._push(batch)
        for session, said in batch.spoken.items():
            session.write(said[0] if len(said) == 1 else b"".join(said))
        for session in batch.closing:
            session.close()

    def _push(self, batch: Batch) -> None:
        changes, connections = batch.changes, self._connections
        for delivery in changes.deliveries:
            session = connections.of_worker(delivery.session)
            if session is not None:
                records = [msgspec.Raw(record) for record in delivery.records]
                batch.say(session, session.conn.push(messages.Deliver(delivery.token, delivery.alone, records)))
        for revocation in changes.revocations:
            session = connections.of_worker(revocation.session)
            if session is not None:
                batch.say(session, session.conn.push(messages.Revoke(refs_to(revocation.tasks))))
        for worker in changes.expelled:
            self._expel(batch, worker)
        results: dict[int, list[TaskResult]] = {}
        for ending in changes.endings:
            for number in ending.waiters:
                results.setdefault(number, []).append(ending.result)
        for number, ended in results.items():
            session = connections.numbered(number)
            if session is not None:
                for part in in_frames(ended, self._limits.frame_bytes_max):
                    batch.say(session, session.conn.push(messages.Results(part)))

    def _expel(self, batch: Batch, worker: bytes) -> None:
        """End the connection of a worker that was silent for too long: it may live, and must register anew."""
        session = self._connections.of_worker(worker)
        if session is not None:
            error = SessionUnknown(f"worker session {worker.hex()} was silent for {self._limits.lease_ms} ms")
            batch.say(session, session.dismiss(error))
            batch.closing.append(session)


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
