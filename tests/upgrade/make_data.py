"""Makes a golden data directory: one of everything that a broker keeps, as this version writes it.

``python -m tests.upgrade.make_data`` writes data-v1.tar.gz and, beside it, data-v1.json: what is in
there.  Neither is ever made again: every later version must open what this one wrote.  A version that
changes the rows adds a pair of its own.
"""

import asyncio
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tests.broker.peers import Bench, Peer, records, settle
from tq.core.lease import DeliveryRef
from tq.core.outcome import Done, FailedAttempt, TaskFailure
from tq.core.retry import RetryPolicy
from tq.core.task import NewTask, TaskSpec
from tq.core.worker import WorkerInfo
from tq.engine.rows import OPERATION, key_end
from tq.protocol import messages
from tq.protocol.codec import encode_message
from tq.protocol.messages import DeadAction, QueueAction, QueueWeight, Role
from tq.store.base import Durability
from tq.store.rocks import RocksStore

HERE = Path(__file__).parent
ARCHIVE = HERE / "data-v1.tar.gz"
FACTS = HERE / "data-v1.json"

SECRET = b"golden secret 16"
PAYLOAD = msgspec.msgpack.encode([["a@b.c", "hi"], {"copies": 2}])
FAILURE = TaskFailure("ValueError", "no such address", "Traceback (most recent call last): ...")
# More than one slice of a purge, so that one is still to be done.
PURGED = 900


class Maker:
    """A broker over the directory, with peers that bring it into its state, and what is known of that."""

    def __init__(self, bench: Bench) -> None:
        self.facts: dict[str, Any] = {}
        self._bench = bench

    async def connect(self) -> None:
        self._client = await self._bench.client()

    async def ask(self, message: msgspec.Struct) -> Any:
        self._client.send(message)
        await settle()
        return self._client.received()[-1]

    async def enqueue(self, queue: str, count: int = 1, **spec: Any) -> list[str]:
        """Enqueue equal tasks and return their ids."""
        spec = {"name": "mail.send", "queue": queue, **spec}
        tasks = [NewTask(self._bench.new_id(), 0, PAYLOAD) for _ in range(count)]
        frame = messages.Enqueue(self._bench.new_id(), [TaskSpec(**spec)], tasks)
        assert await self.ask(frame) == messages.Enqueued()
        self.last_frame = frame
        return [task.id.hex() for task in tasks]

    async def worker(self, name: str, queue: str, window: int) -> Peer:
        info = WorkerInfo(name, "host-1", 4711, "async", window, ["mail.send", "mail.check"], "1")
        hello = messages.Hello(messages.MAGIC, messages.VERSIONS.first, Role.WORKER, "", session_of(name), SECRET, info)
        peer = await self._bench._greeted(hello)
        peer.send(messages.Subscribe([QueueWeight(queue, 1)]))
        peer.send(messages.Window(window, 1 << 20))
        await settle()
        return peer

    async def taken(self, worker: Peer) -> list[tuple[int, int, str]]:
        """Return (token, index, id) of what *worker* was given."""
        await settle()
        return [
            (deliver.token, index, record.id.hex())
            for deliver in worker.received()
            if isinstance(deliver, messages.Deliver)
            for index, record in enumerate(records(deliver))
        ]

    async def leave(self, worker: Peer) -> None:
        worker.send(messages.Goodbye())
        await settle()
        worker.session.connection_lost(None)


def session_of(name: str) -> bytes:
    """Return the session of worker *name*."""
    return name.encode().ljust(16, b".")


async def make(directory: Path) -> dict[str, Any]:
    """Bring a broker over a new store into its state, copy the store to *directory*, and say what is there."""
    with tempfile.TemporaryDirectory() as scratch:
        # Without waiting for the disk a commit ends at once, so that nothing here depends on real time.
        store = RocksStore(Path(scratch, "data"), durability=Durability.NONE)
        bench = await Bench(store).start()
        maker = Maker(bench)
        await maker.connect()
        await _ended(maker)
        await _lost(maker, bench)
        await _running(maker)
        await _waiting(maker)
        await _purging(maker)
        # Before the next turn of the loop goes on with the purge.
        store.snapshot(directory)
        maker.facts["at"] = bench.now_ms
        await bench.service.stop()
        store.close()
    return maker.facts


async def _ended(maker: Maker) -> None:
    """Results that are kept, dead letters, cancelled tasks, retries that wait, a second generation."""
    facts = maker.facts
    kept = {"result_ttl_ms": 3_600_000}
    completed = await maker.enqueue("index", 2, **kept) + await maker.enqueue("index", codec="json", **kept)
    failed = await maker.enqueue("index", 2, retry=RetryPolicy(max_attempts=1), **kept)
    rejected = await maker.enqueue("index", 2, **kept)
    scheduled = await maker.enqueue("index", 3, retry=RetryPolicy(max_attempts=5, backoff_ms=600_000), **kept)
    worker = await maker.worker("ended", "index", 100)
    places = {task_id: (token, index) for token, index, task_id in await maker.taken(worker)}
    results = {completed[0]: b"\xa4done", completed[1]: None, completed[2]: b'"done"'}
    worker.send(
        messages.Settle(
            [Done(*places[task_id], result) for task_id, result in results.items()],
            [FailedAttempt(*places[task_id], FAILURE) for task_id in failed]
            + [FailedAttempt(*places[task_id], FAILURE, reject=True) for task_id in rejected]
            + [FailedAttempt(*places[task_id], FAILURE, retry_after_ms=500_000) for task_id in scheduled[:1]]
            + [FailedAttempt(*places[task_id], FAILURE) for task_id in scheduled[1:]],
        )
    )
    await settle()
    await maker.leave(worker)
    redriven = await maker.ask(messages.ControlDead(DeadAction.REDRIVE, None, [bytes.fromhex(rejected[1])]))
    assert redriven == messages.Affected(1)
    cancelled = await maker.enqueue("index", **kept)
    assert await maker.ask(messages.Cancel([bytes.fromhex(cancelled[0])])) == messages.Cancelled()
    facts["completed"] = {task_id: result.hex() if result else None for task_id, result in results.items()}
    facts["dead"] = {**dict.fromkeys(failed, "attempts"), rejected[0]: "rejected"}
    facts["scheduled"] = scheduled
    facts["cancelled"] = cancelled
    facts["redriven"] = rejected[1]


async def _lost(maker: Maker, bench: Bench) -> None:
    """A dead letter whose worker died with it, and a suspect that waits for its next chance."""
    fatal = await maker.enqueue("lost", max_losses=1)
    for name in ("lost-1", "lost-2"):
        worker = await maker.worker(name, "lost", 1)
        ((token, index, _),) = await maker.taken(worker)
        worker.send(messages.Started([DeliveryRef(token, index)]))
        await settle()
        bench.pass_time(11_000)
        await settle()
    suspect = await maker.enqueue("lost", max_losses=3)
    worker = await maker.worker("lost-3", "lost", 1)
    ((token, index, _),) = await maker.taken(worker)
    worker.send(messages.Started([DeliveryRef(token, index)]))
    await settle()
    bench.pass_time(11_000)
    await settle()
    maker.facts["dead"][fatal[0]] = "losses"
    maker.facts["suspect"] = suspect[0]


async def _running(maker: Maker) -> None:
    """A worker in the middle of its work: one of its tasks has started, one waits there."""
    await maker.enqueue("busy", 2)
    worker = await maker.worker("busy", "busy", 10)
    taken = await maker.taken(worker)
    worker.send(messages.Started([DeliveryRef(*taken[0][:2])]))
    await settle()
    maker.facts["running"] = {
        "session": session_of("busy").hex(),
        "secret": SECRET.hex(),
        "tasks": [{"token": token, "index": index, "id": task_id} for token, index, task_id in taken],
    }


async def _waiting(maker: Maker) -> None:
    """Ready tasks of several priorities and names, a paused queue, and the last frame as it was sent."""
    ready = {priority: await maker.enqueue("mail", 2, priority=priority) for priority in (0, 128, 255, 84, 170)}
    ready[255] += await maker.enqueue("mail", name="mail.check", priority=255)
    maker.facts["ready"] = [task_id for priority in sorted(ready, reverse=True) for task_id in ready[priority]]
    maker.facts["frame"] = bytes(encode_message(maker.last_frame, 2)).hex()
    maker.facts["paused"] = await maker.enqueue("reports", 3)
    await maker.ask(messages.ControlQueue("reports", QueueAction.PAUSE))


async def _purging(maker: Maker) -> None:
    """A purge of which the first slice, at most, has been done."""
    await maker.enqueue("bulk", PURGED)
    assert await maker.ask(messages.ControlQueue("bulk", QueueAction.PURGE)) == messages.Affected(PURGED)
    maker.facts["purged"] = PURGED


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def main() -> None:
    """Write the archive and the facts."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "data")
        facts = asyncio.run(make(directory))
        for log in (directory / "rocks").glob("LOG*"):
            log.unlink()
        with tarfile.open(ARCHIVE, "w:gz") as archive:
            archive.add(directory, "data", filter=_anonymous)
        opened = RocksStore(directory)
        assert opened.scan(OPERATION, key_end(OPERATION), 1), "the purge is over already"
        opened.close()
        shutil.rmtree(directory)
    FACTS.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
