"""What a process pool and its children say to each other, over a pair of sockets.

    parent                           child
    SETUP: the app, where from  -->
                                <--  READY, or BROKEN: why the app cannot be imported
    RUN: a task                 -->
                                <--  STARTED
    REMIND (perhaps)            -->
    STOP: why (perhaps)         -->
                                <--  OUTCOME

A task whose child ended before it said STARTED has come to no harm: another runs it.

Frames are those of `tq.protocol.frames`; the correlation id counts a child's tasks.
Invariant: a child has one task at a time, and sends one outcome for each.
"""

from enum import IntEnum

import msgspec

from tq.worker.assignment import Delivered, Failed, Outcome, Stop


class Kind(IntEnum):
    """What a frame is."""

    SETUP = 1
    READY = 2
    BROKEN = 3
    RUN = 4
    STARTED = 5
    STOP = 6
    OUTCOME = 7
    REMIND = 8


class Setup(msgspec.Struct, frozen=True, array_like=True):
    """How a child becomes like its parent.

    ``app`` is ``module:name``.  ``logs`` is what sets up logging, ``module:function`` and
    its arguments; without one it is plain text, at ``log_level``, the parent's root logger's.
    ``tells_memory``: say with each outcome how much memory it holds.
    """

    app: str
    worker: str
    sys_path: list[str]
    log_level: int
    logs: list[str]
    tells_memory: bool = False


class Run(msgspec.Struct, frozen=True, array_like=True):
    """A task to run."""

    task: Delivered
    result_bytes_max: int


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """An outcome, and how much memory its process holds after it, 0 if it was not asked."""

    result: bytes | None
    failed: Failed | None
    memory_bytes: int = 0

    @property
    def outcome(self) -> Outcome:
        """The outcome as the executor has it."""
        return self.result if self.failed is None else self.failed


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_setup = msgspec.msgpack.Decoder(Setup).decode
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_ended = msgspec.msgpack.Decoder(Ended).decode
decode_stop = msgspec.msgpack.Decoder(Stop).decode
decode_text = msgspec.msgpack.Decoder(str).decode


def ended(outcome: Outcome, memory_bytes: int = 0) -> Ended:
    """Return *outcome* as it travels."""
    if isinstance(outcome, Failed):
        return Ended(None, outcome, memory_bytes)
    return Ended(outcome, None, memory_bytes)
