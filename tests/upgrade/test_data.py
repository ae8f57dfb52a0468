"""The golden data directories of all versions: today's broker opens them, finds all, and goes on with it."""

import asyncio
import json
import tarfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.broker.peers import Bench, Peer, records, settle
from tq.core.errors import StoreTooNew
from tq.core.lifecycle import TaskState
from tq.core.outcome import Done, TaskFailure
from tq.core.task import TaskView
from tq.core.worker import WorkerInfo
from tq.engine.engine import Engine, EngineSettings
from tq.engine.rows import META, u64
from tq.protocol import messages
from tq.protocol.codec import decode_message
from tq.protocol.frames import FrameReader
from tq.protocol.messages import DeadAction, QueueAction, QueueWeight, Role
from tq.store.base import Durability
from tq.store.rocks import RocksStore

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("data-v*.tar.gz"))
NAMES = ["mail.send", "mail.check"]
PAYLOAD = [["a@b.c", "hi"], {"copies": 2}]
FAILURE = TaskFailure("ValueError", "no such address", "Traceback (most recent call last): ...")


class Opened:
    """Today's broker over a copy of an old directory, a second after it was left."""

    def __init__(self, bench: Bench, client: Peer, facts: dict[str, Any]) -> None:
        self.bench = bench
        self.client = client
        self.facts = facts

    async def ask(self, message: msgspec.Struct) -> Any:
        self.client.send(message)
        await settle()
        return self.client.received()[-1]

    async def view(self, task_id: str) -> TaskView:
        view: TaskView | None
        (view,) = (await self.ask(messages.Get([bytes.fromhex(task_id)]))).tasks
        assert view is not None, f"task {task_id} is gone"
        return view

    async def queue(self, name: str) -> Any:
        (view,) = (await self.ask(messages.ListQueues(name))).queues
        return view

    async def worker(self, session: bytes, secret: bytes, held: list[messages.Held], queues: list[str]) -> Peer:
        peer = Peer(self.bench)
        info = WorkerInfo("w", "host-1", 4711, "async", 100, NAMES)
        peer.send(messages.Hello(messages.MAGIC, messages.VERSIONS.first, Role.WORKER, "", session, secret, info, held))
        peer.send(messages.Subscribe([QueueWeight(name, 1) for name in queues]))
        peer.send(messages.Window(100, 1 << 20))
        await settle()
        return peer


Check = Callable[[Opened], Coroutine[Any, Any, None]]


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Check], None]:
    """What runs a check on the directory."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    facts = json.loads(request.param.with_name(request.param.name.replace(".tar.gz", ".json")).read_text())

    async def run(check: Check) -> None:
        store = RocksStore(tmp_path / "data", durability=Durability.NONE)
        bench = Bench(store)
        bench.now_ms = facts["at"] + 1_000
        await bench.start()
        try:
            await check(Opened(bench, await bench.client(), facts))
        finally:
            await bench.service.stop()
            store.close()

    return lambda check: asyncio.run(run(check))


def test_there_is_a_golden_directory() -> None:
    assert ARCHIVES


@pytest.mark.parametrize("name", [b"format", b"records"])
@pytest.mark.parametrize("archive_path", ARCHIVES, ids=lambda path: path.name)
def test_a_directory_made_newer_is_refused_and_left_alone(archive_path: Path, name: bytes, tmp_path: Path) -> None:
    with tarfile.open(archive_path) as archive:
        archive.extractall(tmp_path, filter="data")
    store = RocksStore(tmp_path / "data", durability=Durability.NONE)
    store.commit({META + name: u64(99)})
    before = store.scan(b"", b"\xff", 10_000)

    with pytest.raises(StoreTooNew, match=r"format 99; this version knows up to"):
        Engine(store, EngineSettings(), lambda: 0.0).restore(0)

    assert store.scan(b"", b"\xff", 10_000) == before
    store.close()


def test_what_has_ended_is_kept_as_it_was(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        for task_id, result in old.facts["completed"].items():
            view = await old.view(task_id)
            assert view.state is TaskState.COMPLETED
            assert view.result == (bytes.fromhex(result) if result else None)
        for task_id in old.facts["cancelled"]:
            assert (await old.view(task_id)).state is TaskState.CANCELLED
        for task_id, reason in old.facts["dead"].items():
            view = await old.view(task_id)
            assert (view.state, view.reason) == (TaskState.DEAD, reason)
            assert view.failure == FAILURE or reason == "losses"
        dead = (await old.ask(messages.ListTasks("dead"))).tasks
        assert {view.id.hex() for view in dead} == old.facts["dead"].keys()

    opened(check)


def test_results_and_dead_letters_are_forgotten_when_their_time_has_come(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        old.bench.now_ms += 31 * 24 * 3_600 * 1_000
        # The clock of the engine follows the wall at its own pace; a restart takes it over.
        await old.bench.service.stop()
        later = Bench(old.bench.service._store)
        later.now_ms = old.bench.now_ms
        await later.start()
        again = Opened(later, await later.client(), old.facts)
        later.pass_time(1_000)
        await settle(200)
        ended = [*old.facts["completed"], *old.facts["cancelled"], *old.facts["dead"]]
        views = (await again.ask(messages.Get([bytes.fromhex(task_id) for task_id in ended]))).tasks
        assert views == [None] * len(ended)
        await later.service.stop()

    opened(check)


def test_ready_tasks_are_handed_out_in_their_order(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["mail"])
        delivered = [
            record
            for message in worker.received()
            if isinstance(message, messages.Deliver)
            for record in records(message)
        ]
        assert [record.id.hex() for record in delivered] == old.facts["ready"]
        assert all(msgspec.msgpack.decode(record.payload) == PAYLOAD for record in delivered)
        assert {record.spec.name for record in delivered} == set(NAMES)

    opened(check)


def test_a_worker_in_the_middle_of_its_work_goes_on(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        running = old.facts["running"]
        tasks = running["tasks"]
        token, indexes = tasks[0]["token"], [task["index"] for task in tasks]
        session, secret = bytes.fromhex(running["session"]), bytes.fromhex(running["secret"])
        assert [(await old.view(task["id"])).started for task in tasks] == [True, False]

        worker = await old.worker(session, secret, [messages.Held(token, indexes, indexes[:1])], ["busy"])
        welcome, *_ = worker.received()
        worker.send(messages.Settle([Done(token, index, b"\x01") for index in indexes]))
        await settle()

        assert (welcome.resumed, welcome.lost) == (True, [])
        assert worker.received() == [messages.Settled()]
        assert [(await old.view(task["id"])).state for task in tasks] == [TaskState.COMPLETED] * 2

    opened(check)


def test_a_worker_that_does_not_come_back_loses_what_it_held(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        old.bench.pass_time(11_000)
        await settle()
        views = [await old.view(task["id"]) for task in old.facts["running"]["tasks"]]
        assert [(view.state, view.losses) for view in views] == [(TaskState.READY, 1), (TaskState.READY, 0)]

    opened(check)


def test_a_suspect_is_still_handed_out_alone(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["lost"])
        (deliver,) = [message for message in worker.received() if isinstance(message, messages.Deliver)]
        assert deliver.alone
        assert [(record.id.hex(), record.losses) for record in records(deliver)] == [(old.facts["suspect"], 1)]

    opened(check)


def test_retries_wait_for_their_time_and_then_run(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        for task_id in old.facts["scheduled"]:
            view = await old.view(task_id)
            assert (view.state, view.attempts, view.failure) == (TaskState.SCHEDULED, 1, FAILURE)

        old.bench.pass_time(601_000)
        await settle()

        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["index"])
        delivered = [record.id.hex() for message in worker.received()[2:] for record in records(message)]
        assert sorted(delivered) == sorted([*old.facts["scheduled"], old.facts["redriven"]])

    opened(check)


def test_a_paused_queue_stays_paused_until_it_is_resumed(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["reports"])
        assert (await old.queue("reports")).paused
        assert not [message for message in worker.received() if isinstance(message, messages.Deliver)]

        await old.ask(messages.ControlQueue("reports", QueueAction.RESUME))

        (deliver,) = worker.received()
        assert [record.id.hex() for record in records(deliver)] == old.facts["paused"]

    opened(check)


def test_a_purge_that_was_under_way_comes_to_its_end(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        assert (await old.queue("bulk")).ready == 0
        for _ in range(20):
            old.bench.service._tick()
            await settle()
        queue = await old.queue("bulk")
        assert (queue.purging, queue.ready, queue.purged_total) == (False, 0, old.facts["purged"])
        assert queue.enqueued_total == old.facts["purged"]

    opened(check)


def test_a_frame_that_is_sent_again_makes_no_second_task(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        (frame,) = FrameReader().feed(bytes.fromhex(old.facts["frame"]))
        before = await old.queue("mail")
        assert await old.ask(decode_message(frame.kind, frame.body)) == messages.Enqueued()
        assert await old.queue("mail") == before

    opened(check)


def test_dead_letters_can_be_redriven_and_run(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        dead = [task_id for task_id, reason in old.facts["dead"].items() if reason != "losses"]
        affected = await old.ask(messages.ControlDead(DeadAction.REDRIVE, "index"))
        for _ in range(5):
            old.bench.service._tick()
            await settle()
        assert affected == messages.Affected(len(dead))
        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["index"])
        delivered = [record for message in worker.received()[2:] for record in records(message)]
        assert {record.id.hex() for record in delivered} == {*dead, old.facts["redriven"]}
        assert {(record.generation, record.attempts) for record in delivered} == {(2, 0)}

    opened(check)


def test_tokens_and_counters_go_on_where_they_were(opened: Callable[[Check], None]) -> None:
    async def check(old: Opened) -> None:
        worker = await old.worker(b"s" * 16, b"x" * 16, [], ["mail"])
        (deliver,) = [message for message in worker.received() if isinstance(message, messages.Deliver)]
        assert deliver.token > old.facts["running"]["tasks"][0]["token"]
        queue = await old.queue("index")
        assert (queue.completed_total, queue.cancelled_total, queue.dead_total) == (3, 1, 4)
        assert (queue.ready, queue.scheduled, queue.dead) == (1, 3, 3)
        assert (await old.queue("lost")).lost_total == 3

    opened(check)
