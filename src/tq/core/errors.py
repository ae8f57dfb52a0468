"""Every error of the product, in one tree, and the stable codes by which peers know them.

    TaskQueueError
      UsageError                 the call is wrong: fix it
        InvalidArguments         the arguments do not fit the task's signature
        NotSerializable          an argument or a result cannot be encoded
        ConfigError              a flag, an environment variable or a settings file is wrong
      BrokerError                the broker refused; its state is unchanged
        (one class for each `ErrorCode` below)
      ProtocolError
        LocalProtocolError       our own bug: we tried to send what may not be sent now
        RemoteProtocolError      the peer's bug: it sent what nobody may send
      TransportError
        ConnectionLost           the connection ended while a request was waiting
        RequestTimeout           no answer within the deadline; the outcome is unknown
        BrokerUnavailable        no connection could be made within the deadline
      StoreError
        StoreLocked, StoreCorrupt, StoreTooNew, StoreFull
      TaskError subclasses are in `tq.core.outcome`: they are a task's failure, not the queue's.

Invariant: a code, once released, keeps its meaning; `CODES` is the one table that the
wire, the documentation (docs/errors.md) and later HTTP and gRPC are made from.
"""

from enum import Enum
from typing import NamedTuple


class TaskQueueError(Exception):
    """The root: catch it to catch everything that this product raises on purpose."""


class UsageError(TaskQueueError):
    """The call is wrong in itself; the same call fails always. Fix the call."""


class InvalidArguments(UsageError):
    """The arguments do not fit the task's signature or annotations. Nothing was sent."""


class NotSerializable(UsageError):
    """A value cannot be encoded for the wire. Pass plain data, or a type the codec knows."""


class ConfigError(UsageError):
    """A setting is unknown or out of its bounds. The message names it and where it was set."""


class ProtocolError(TaskQueueError):
    """The rules of the wire were broken; the connection is of no further use."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what may not be sent in this state: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what may not be sent: a bug there, or it does not speak this protocol."""


class TransportError(TaskQueueError):
    """The way to the broker failed; the broker may or may not have acted."""


class ConnectionLost(TransportError):
    """The connection ended while a request was waiting. Resending the same frame is safe."""


class RequestTimeout(TransportError):
    """No answer came within the deadline; the outcome is unknown. Resending the same frame is safe."""


class BrokerUnavailable(TransportError):
    """No broker answered at any of the addresses within the deadline. Is it running there?"""


class StoreError(TaskQueueError):
    """The store failed. The broker stops; restart it once the cause is mended."""


class StoreLocked(StoreError):
    """Another process has the data directory open. Stop it, or use another directory."""


class StoreCorrupt(StoreError):
    """The data directory is damaged. Nothing was changed; restore a copy, or ask RocksDB to repair one."""


class StoreTooNew(StoreError):
    """The data was written by a later version. Nothing was changed; run that version or a later one."""


class StoreFull(StoreError):
    """The disk has no room for the commit. Free some; nothing that was acknowledged is lost."""


class ErrorCode(Enum):
    """The reasons for which a broker refuses. The value is what travels."""

    INVALID_ARGUMENT = "invalid_argument"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    FRAME_TOO_LARGE = "frame_too_large"
    BATCH_TOO_LARGE = "batch_too_large"
    DUPLICATE_TASK = "duplicate_task"
    OUTCOME_UNKNOWN = "outcome_unknown"
    TASK_NOT_FOUND = "task_not_found"
    QUEUE_NOT_FOUND = "queue_not_found"
    TOO_MANY_QUEUES = "too_many_queues"
    WRONG_STATE = "wrong_state"
    LEASE_LOST = "lease_lost"
    SESSION_UNKNOWN = "session_unknown"
    STORE_FULL = "store_full"
    OVERLOADED = "overloaded"
    GOING_AWAY = "going_away"
    UNSUPPORTED_VERSION = "unsupported_version"
    PROTOCOL_VIOLATION = "protocol_violation"
    INTERNAL = "internal"


class Meaning(NamedTuple):
    """What a code means to the one who gets it."""

    retryable: bool
    """Sending the same again later may succeed."""
    closes: bool
    """The broker closes the connection after it."""
    explanation: str
    """What happened and what to do, in a sentence or two."""


CODES: dict[ErrorCode, Meaning] = {
    ErrorCode.INVALID_ARGUMENT: Meaning(
        False, False, "A field is out of its bounds; the text names it. Fix the request."
    ),
    ErrorCode.PAYLOAD_TOO_LARGE: Meaning(
        False,
        False,
        "A task's arguments or result exceed the broker's limit. Send a reference to the data instead.",
    ),
    ErrorCode.FRAME_TOO_LARGE: Meaning(False, True, "A frame is longer than the broker reads. Split the request."),
    ErrorCode.BATCH_TOO_LARGE: Meaning(
        False, False, "One request holds too many tasks or bytes to be one atomic change. Split it."
    ),
    ErrorCode.DUPLICATE_TASK: Meaning(
        False, False, "A task of this id exists already; the one sent was not enqueued. Use a new id."
    ),
    ErrorCode.OUTCOME_UNKNOWN: Meaning(
        False,
        False,
        "The frame is older than the broker remembers answers. Look the tasks up before sending new ones.",
    ),
    ErrorCode.TASK_NOT_FOUND: Meaning(
        False, False, "No such task: never enqueued, purged, or past the time its result is kept."
    ),
    ErrorCode.QUEUE_NOT_FOUND: Meaning(
        False, False, "No such queue: a queue exists from its first task or worker on. Check the name."
    ),
    ErrorCode.TOO_MANY_QUEUES: Meaning(
        False,
        False,
        "The broker's limit on the number of queues is reached. Use fewer names, or raise queues_max.",
    ),
    ErrorCode.WRONG_STATE: Meaning(
        False, False, "The task is in a state from which this is not possible; the text says which."
    ),
    ErrorCode.LEASE_LOST: Meaning(
        False,
        False,
        "The delivery is no longer this worker's: it expired or was taken back. Drop the task's outcome.",
    ),
    ErrorCode.SESSION_UNKNOWN: Meaning(
        False, True, "The worker session has expired or its secret is wrong. Register as a new worker."
    ),
    ErrorCode.STORE_FULL: Meaning(
        True,
        False,
        "The broker's disk is below its reserve: it takes no new tasks but lets running ones finish. Free space.",
    ),
    ErrorCode.OVERLOADED: Meaning(
        True, False, "The broker has more unfinished requests than it may hold. Try again shortly."
    ),
    ErrorCode.GOING_AWAY: Meaning(True, True, "The broker is stopping. Reconnect."),
    ErrorCode.UNSUPPORTED_VERSION: Meaning(
        False, True, "The two sides share no version of the protocol. Upgrade the older one."
    ),
    ErrorCode.PROTOCOL_VIOLATION: Meaning(
        False, True, "Bytes or messages that the protocol does not allow. A bug of the sender."
    ),
    ErrorCode.INTERNAL: Meaning(False, True, "A bug in the broker; its log has the details. Please report it."),
}


class BrokerError(TaskQueueError):
    """The broker refused a request, whose effect is none. `code` says why, the text with which values."""

    code: ErrorCode = ErrorCode.INTERNAL
    retry_after_ms: int | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return CODES[self.code].retryable


class InvalidArgument(BrokerError):
    """A field of the request is out of its bounds."""

    code = ErrorCode.INVALID_ARGUMENT


class PayloadTooLarge(BrokerError):
    """Arguments or a result exceed the broker's limit."""

    code = ErrorCode.PAYLOAD_TOO_LARGE


class FrameTooLarge(BrokerError):
    """A frame is longer than the broker reads."""

    code = ErrorCode.FRAME_TOO_LARGE


class BatchTooLarge(BrokerError):
    """One request is too much for one atomic change."""

    code = ErrorCode.BATCH_TOO_LARGE


class DuplicateTask(BrokerError):
    """A task of this id exists already."""

    code = ErrorCode.DUPLICATE_TASK


class OutcomeUnknown(BrokerError):
    """The frame is older than the broker remembers answers."""

    code = ErrorCode.OUTCOME_UNKNOWN


class TaskNotFound(BrokerError):
    """No such task, or none any more."""

    code = ErrorCode.TASK_NOT_FOUND


class QueueNotFound(BrokerError):
    """No such queue."""

    code = ErrorCode.QUEUE_NOT_FOUND


class TooManyQueues(BrokerError):
    """The broker's limit on queues is reached."""

    code = ErrorCode.TOO_MANY_QUEUES


class WrongState(BrokerError):
    """The task is in a state from which this is not possible."""

    code = ErrorCode.WRONG_STATE


class LeaseLost(BrokerError):
    """The delivery is no longer this worker's."""

    code = ErrorCode.LEASE_LOST


class SessionUnknown(BrokerError):
    """The worker session has expired or its secret is wrong."""

    code = ErrorCode.SESSION_UNKNOWN


class BrokerStoreFull(BrokerError):
    """The broker's disk is below its reserve."""

    code = ErrorCode.STORE_FULL


class Overloaded(BrokerError):
    """The broker has more unfinished requests than it may hold."""

    code = ErrorCode.OVERLOADED


class GoingAway(BrokerError):
    """The broker is stopping."""

    code = ErrorCode.GOING_AWAY


class UnsupportedVersion(BrokerError):
    """The two sides share no version of the protocol."""

    code = ErrorCode.UNSUPPORTED_VERSION


class ProtocolViolation(BrokerError):
    """The broker closed the connection over bytes or messages that the protocol does not allow."""

    code = ErrorCode.PROTOCOL_VIOLATION


class InternalError(BrokerError):
    """A bug in the broker."""

    code = ErrorCode.INTERNAL


_BY_CODE: dict[str, type[BrokerError]] = {kind.code.value: kind for kind in BrokerError.__subclasses__()}


def broker_error(code: str, text: str, retry_after_ms: int | None = None) -> BrokerError:
    """Return the error that a refusal with *code* stands for; a code unknown here is a plain `BrokerError`."""
    error = _BY_CODE.get(code, BrokerError)(text)
    error.retry_after_ms = retry_after_ms
    return error
