"""One example of every message, from fixed values, and the bytes it had when it was first released.

``python -m tests.upgrade.wire`` adds the bytes of new messages to wire-v1.json; it never
changes those that are there: peers of older versions send and expect them.
"""

import json
from pathlib import Path

import msgspec

from tq.core.lease import DeliveryRef
from tq.core.lifecycle import DeadReason, TaskState
from tq.core.outcome import Done, FailedAttempt, TaskFailure, TaskResult
from tq.core.priority import Priority
from tq.core.queue import QueueView
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskRecord, TaskSpec, TaskView
from tq.core.times import Timestamp
from tq.core.worker import WorkerInfo, WorkerView
from tq.protocol import messages as m
from tq.protocol.codec import encode_message
from tq.protocol.messages import QueueWeight, RefusedCancel, RefusedEnqueue

GOLDEN = Path(__file__).with_name("wire-v1.json")
GOLDEN_GROWN = Path(__file__).with_name("wire-v1-grown.json")
CORRELATION = 0x01020304

ID_1 = bytes.fromhex("018f4e2c5a007000800000000000000a")
ID_2 = bytes.fromhex("018f4e2c5a007000800000000000000b")
FRAME_ID = bytes.fromhex("018f4e2c5a0170008000000000000001")
SESSION = bytes(range(16))
SECRET = bytes(range(16, 32))
AT = Timestamp(1_700_000_000_000)
PAYLOAD = msgspec.msgpack.encode((("a@b.c", "hi"), {}))

FAILURE = TaskFailure("ValueError", "no such address", "Traceback ...")
RETRY = RetryPolicy(max_attempts=3, backoff_ms=500, backoff_max_ms=60_000, jitter=0.25)
SPEC = TaskSpec("mail.send", "mail", 212, 30_000, 60_000, RETRY, 2, "json")
RECORD = TaskRecord(1, ID_1, SPEC, PAYLOAD, AT, 2, 1, 1, FAILURE)
INFO = WorkerInfo("worker-1", "host-1", 4711, "async", 16, ["mail.send", "mail.check"], "0.1.0")
INFO_GROWN = msgspec.structs.replace(INFO, labels={"zone": "eu"})
COMPLETED = TaskResult(ID_1, TaskState.COMPLETED, AT, b"\x01", attempts=1)
DEAD = TaskResult(ID_2, TaskState.DEAD, AT, None, DeadReason.ATTEMPTS, FAILURE, 3, 1, "json")
VIEW = TaskView(
    id=ID_1,
    name="mail.send",
    queue="mail",
    state=TaskState.SCHEDULED,
    priority=Priority(212),
    enqueued_at=AT,
    due_at=Timestamp(AT + 500),
    finished_at=Timestamp(AT + 600),
    generation=2,
    attempts=1,
    losses=1,
    max_attempts=3,
    timeout_ms=30_000,
    payload_bytes=len(PAYLOAD),
    worker="worker-1",
    started=True,
    reason="attempts",
    failure=FAILURE,
    result=b"\x01",
    codec="json",
)
QUEUE = QueueView(
    name="mail",
    paused=True,
    ready=1,
    running=2,
    scheduled=3,
    dead=4,
    workers=5,
    enqueued_total=6,
    completed_total=7,
    failed_total=8,
    lost_total=9,
    dead_total=10,
    cancelled_total=11,
    purged_total=12,
    purging=True,
    names_unserved=["mail.check"],
)
WORKER = WorkerView(
    session=SESSION,
    info=INFO,
    queues=["mail"],
    connected=True,
    registered_at=AT,
    seen_at=Timestamp(AT + 1),
    held=3,
    started=1,
    isolating=True,
    blocked_by="mail.send",
)
STATS = m.Stats(
    server="tq-broker 0.1.0",
    started_at=AT,
    clock_ms=AT + 1,
    durability="sync",
    store="rocksdb",
    connections=1,
    workers=2,
    queues=3,
    ready=4,
    running=5,
    scheduled=6,
    dead=7,
    enqueued_total=8,
    completed_total=9,
    failed_total=10,
    lost_total=11,
    commits_total=12,
    commit_ms_mean=0.5,
    rss_bytes=13,
    disk_free_bytes=14,
)

EXAMPLES: list[msgspec.Struct] = [
    m.Hello(
        m.MAGIC,
        1,
        m.Role.WORKER,
        "tq 0.1.0",
        SESSION,
        SECRET,
        INFO,
        [m.Held(1 << 40, indexes=[0, 1], started=[1])],
    ),
    m.Welcome(
        1, "tq-broker 0.1.0", AT, m.Limits(1 << 20, 1 << 18, 1_000, 2_000, 10_000), True, [DeliveryRef(1 << 40, 0)]
    ),
    m.Error("overloaded", "too many requests", retryable=True, closes=False, retry_after_ms=100),
    m.Ok(),
    m.Ping(),
    m.Pong("tq-broker 0.1.0", AT),
    m.GoingAway("restart"),
    m.Enqueue(FRAME_ID, [SPEC], [NewTask(ID_1, 0, PAYLOAD), NewTask(ID_2, 0, b"")]),
    m.Enqueued([RefusedEnqueue(1, "duplicate_task", "exists")]),
    m.Get([ID_1, ID_2]),
    m.Tasks([VIEW, None], b"cursor"),
    m.Wait([ID_1, ID_2]),
    m.Waited([COMPLETED], [ID_2]),
    m.Results([COMPLETED, DEAD]),
    m.Unwait([ID_1]),
    m.Cancel([ID_1]),
    m.Cancelled([RefusedCancel(ID_1, "wrong_state", "it runs")]),
    m.ListTasks("ready", "mail", 10, b"cursor"),
    m.Subscribe([QueueWeight("mail", 4), QueueWeight("default", 1)], weighted=True),
    m.Window(100, 1 << 20),
    m.Deliver((1 << 40) + 1, True, [msgspec.Raw(msgspec.msgpack.encode(RECORD))]),
    m.Settle(
        [Done((1 << 40) + 1, 0, b"\x01"), Done((1 << 40) + 1, 1, None)], [FailedAttempt(1 << 40, 2, FAILURE, 250, True)]
    ),
    m.Settled([DeliveryRef((1 << 40) + 1, 1)]),
    m.Started([DeliveryRef(1 << 40, 2)]),
    m.Release([DeliveryRef(1 << 40, 3)]),
    m.Revoke([DeliveryRef(1 << 40, 4)]),
    m.Heartbeat(12345, "mail.send"),
    m.Goodbye(),
    m.ListQueues("mail"),
    m.Queues([QUEUE]),
    m.ControlQueue("mail", m.QueueAction.PAUSE),
    m.ControlDead(m.DeadAction.REDRIVE, "mail", [ID_1]),
    m.Affected(42),
    m.ListWorkers(),
    m.Workers([WORKER]),
    m.GetStats(),
    STATS,
]

# Rows in these have grown. A row is sent whole, and an older peer skips what it does not know of it (ADR 4).
ROWS_GROWN = frozenset({"Hello", "Workers"})

# What says something in the fields that were added since; those above do not, and keep their bytes.
GROWN: list[msgspec.Struct] = [
    m.Hello(m.MAGIC, 1, m.Role.WORKER, "tq 2", SESSION, SECRET, INFO_GROWN, version_max=2),
    m.Heartbeat(12345, "mail.send", ["report.build", "report.build"]),
    m.ListQueues(None, 100, b"cursor"),
    m.Queues([QUEUE], b"cursor"),
    m.ListWorkers(100, b"cursor"),
    m.Workers([msgspec.structs.replace(WORKER, info=INFO_GROWN, stuck=["report.build"])], b"cursor"),
]


def main() -> None:
    """Add the examples that have no golden bytes yet."""
    for path, examples in ((GOLDEN, EXAMPLES), (GOLDEN_GROWN, GROWN)):
        golden = json.loads(path.read_text()) if path.exists() else {}
        for example in examples:
            golden.setdefault(type(example).__name__, encode_message(example, CORRELATION).hex())
        path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
