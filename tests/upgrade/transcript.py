"""A whole conversation with a broker: what each peer sends, and what it gets, byte by byte, with fixed ids and time.

``python -m tests.upgrade.transcript`` records it from the broker of this version into
transcript-v1.json.  It is not recorded again: peers of older versions go on to talk like that.

Each step is [peer, verb, frames]: ``send`` to the broker, ``get`` from it; or ["", "pass", milliseconds].
"""

import asyncio
import json
from pathlib import Path

import msgspec

from tests.broker.peers import START_MS, Bench, Peer, settle
from tq.core.ids import compose
from tq.core.lease import DeliveryRef
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskSpec
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo
from tq.protocol import messages as m
from tq.protocol.codec import decode_message, encode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import MAGIC, VERSIONS, QueueWeight, Role
from tq.store.memory import MemoryStore

GOLDEN = Path(__file__).with_name("transcript-v1.json")

SESSION, SECRET = b"transcript sess.", b"transcript secr."
FAILURE = TaskFailure("ValueError", "no such address", "Traceback ...")
TASKS = [compose(Timestamp(START_MS), number) for number in range(1, 9)]
FRAMES = [compose(Timestamp(START_MS), 100 + number) for number in range(1, 9)]
TOKEN = 1 << 40
SPEC = TaskSpec(
    "mail.send", "mail", 212, 30_000, 60_000, RetryPolicy(max_attempts=2, backoff_ms=500, jitter=0.0), 2, "json"
)
INFO = WorkerInfo("worker-1", "host-1", 4711, "async", 16, ["mail.send"], "1")
FRAME = m.Enqueue(FRAMES[0], [SPEC], [NewTask(TASKS[number], 0, b'[["a@b.c"],{}]') for number in range(3)])

Step = tuple[str, str, list[str] | int]

SCRIPT: list[tuple[str, list[msgspec.Struct] | int]] = [
    ("client", [m.Hello(MAGIC, VERSIONS.first, Role.CLIENT, "tq 1")]),
    ("client", [FRAME, m.Wait([TASKS[0], TASKS[1]]), m.Get([TASKS[0], b"?" * 16]), m.ListTasks("ready", "mail", 10)]),
    ("worker", [m.Hello(MAGIC, VERSIONS.first, Role.WORKER, "tq-worker 1", SESSION, SECRET, INFO)]),
    ("worker", [m.Subscribe([QueueWeight("mail", 1)]), m.Window(3, 1 << 20)]),
    ("keeper", [m.Hello(MAGIC, VERSIONS.first, Role.KEEPER, "tq-worker 1", SESSION, SECRET)]),
    ("keeper", [m.Heartbeat(1)]),
    ("worker", [m.Started([DeliveryRef(TOKEN, 0), DeliveryRef(TOKEN, 1)])]),
    ("client", [m.ListWorkers(), m.ListQueues("mail"), m.Get([TASKS[0]]), m.Cancel([TASKS[0]])]),
    ("worker", [m.Settle([Done(TOKEN, 0, b'"sent"')], [FailedAttempt(TOKEN, 1, FAILURE)])]),
    ("worker", [m.Release([DeliveryRef(TOKEN, 2)])]),
    ("client", [m.ListTasks("scheduled"), FRAME]),
    ("", 750),
    ("keeper", [m.Heartbeat(2, "mail.send")]),
    (
        "worker",
        [m.Settle([Done(TOKEN + 1, 0, None), Done(TOKEN, 2, None)], [FailedAttempt(TOKEN + 2, 0, FAILURE, 100, True)])],
    ),
    ("client", [m.Unwait([TASKS[2]]), m.ListTasks("dead"), m.ControlDead(m.DeadAction.REDRIVE, None, [TASKS[1]])]),
    (
        "client",
        [m.ControlQueue("mail", m.QueueAction.PAUSE), m.Enqueue(FRAMES[1], [SPEC], [NewTask(TASKS[3], 0, b"")])],
    ),
    ("client", [m.Cancel([TASKS[3]]), m.ControlQueue("mail", m.QueueAction.RESUME), m.ListQueues()]),
    ("client", [m.ControlQueue("mail", m.QueueAction.PURGE), m.ControlQueue("none", m.QueueAction.PURGE), m.Ping()]),
    ("worker", [m.Goodbye()]),
    ("client", [m.Settle([Done(TOKEN, 0, None)])]),
]
"""What is said; what a peer gets is written down after each line, for all of them."""


class Stage:
    """A broker on memory and its peers."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._peers: dict[str, Peer] = {}

    async def play(self, who: str, frames: bytes) -> None:
        """Let a peer send *frames*; it is connected when it first speaks."""
        if who not in self._peers:
            self._peers[who] = Peer(self._bench)
        self._peers[who].session.data_received(frames)
        await settle()

    async def pass_time(self, ms: int) -> None:
        """Let time pass, with a turn of the loop for whatever it brings."""
        self._bench.pass_time(ms)
        await settle()

    def heard(self) -> dict[str, bytes]:
        """Return what each peer has got since last asked, but for those that got nothing."""
        got: dict[str, bytes] = {}
        for who, peer in self._peers.items():
            if peer.wire.written:
                got[who] = bytes(peer.wire.written)
                peer.wire.written.clear()
        return got


async def record() -> list[Step]:
    """Play the script to a broker and write down all that is said."""
    bench = await Bench(MemoryStore()).start()
    stage = Stage(bench)
    steps: list[Step] = []
    correlation = 0
    for who, said in SCRIPT:
        if isinstance(said, int):
            steps.append(("", "pass", said))
            await stage.pass_time(said)
        else:
            frames: list[bytes] = []
            for message in said:
                is_notice = m.MESSAGES[m.TYPE_OF[type(message)]].reply is None
                correlation += not is_notice
                frames.append(bytes(encode_message(message, 0 if is_notice else correlation)))
            steps.append((who, "send", [frame.hex() for frame in frames]))
            await stage.play(who, b"".join(frames))
        steps += [(other, "get", cut(data)) for other, data in stage.heard().items()]
    await bench.service.stop()
    return steps


def cut(data: bytes) -> list[str]:
    """Return the frames in *data*, each as hexadecimal text."""
    frames: list[str] = []
    while data:
        end = 10 + int.from_bytes(data[:4], "big")
        frames.append(data[:end].hex())
        data = data[end:]
    return frames


def messages_in(frames: list[str]) -> list[tuple[int, msgspec.Struct]]:
    """Return the messages of *frames*, each with its correlation id."""
    cutter = FrameReader()
    return [
        (frame.correlation, decode_message(frame.kind, frame.body))
        for text in frames
        for frame in cutter.feed(bytes.fromhex(text))
    ]


def main() -> None:
    """Record the conversation."""
    steps = asyncio.run(record())
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(step) for step in steps) + "\n]\n")
    for who, verb, said in steps:
        for correlation, message in messages_in(said) if isinstance(said, list) else ():
            print(f"{who:7} {verb:4} {correlation:3} {str(message)[:150]}")


if __name__ == "__main__":
    main()
