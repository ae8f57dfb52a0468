"""A broker whose disk is full for a while, or takes tables slowly: workers go on, clients wait or are refused."""

import os
import shutil
import threading
import time
from functools import partial

import pytest

from tests.acceptance import handlers
from tests.acceptance.disks import fill_up, small_disk
from tests.acceptance.fleet import Broker, Fleet, until
from tq.core.errors import BrokerStoreFull
from tq.core.lifecycle import TaskState

LENGTH = int(os.environ.get("ACCEPTANCE_LENGTH", "1"))
MIB = 1 << 20


def test_a_disk_that_fills_and_empties_again_needs_no_restart(fleet: Fleet) -> None:
    with small_disk(fleet.directory / "disk", 96) as disk:
        # Where there is no small disk, the real one has as much to spare before its reserve.
        reserve = 40 * MIB if disk else shutil.disk_usage(fleet.directory).free - 48 * MIB
        broker = fleet.broker(data=(disk or fleet.directory) / "data", disk_reserve_bytes=reserve)
        worker = fleet.worker(name="w", concurrency=2)
        filler = (disk or fleet.directory) / "filler"
        gate = fleet.directory / "w"
        accepted = []
        for number in range(1, 2 * LENGTH + 1):
            gate.unlink(missing_ok=True)
            running = fleet.bind(handlers.gated).enqueue(str(fleet.directory), f"g{number}")
            until(partial(fleet.executions, f"g{number}"))
            accepted += fleet.bind(handlers.echo).enqueue_many([(f"e{each}",) for each in range(200)])
            doomed = fleet.bind(handlers.of_the_future).enqueue("never")

            fill_up(filler, shutil.disk_usage(filler.parent).free - reserve + 2 * MIB)
            until(partial(_has_logged, broker, "disk.full", number))
            with pytest.raises(BrokerStoreFull, match=r"has \d+ bytes free; below its reserve of \d+"):
                fleet.bind(handlers.echo).enqueue("more")
            gate.touch()
            assert running.result(timeout=20) == "w"
            until(lambda: fleet.queue().ready == 1, what="what was there before is done")
            fleet.app.client.cancel([doomed.task_id])

            filler.unlink()
            until(lambda: _takes(fleet), what="the broker takes tasks again")

        until(fleet.is_drained)
        views = fleet.app.client.get([handle.task_id for handle in accepted])
        assert {view and view.state for view in views} == {TaskState.COMPLETED}
        assert broker.is_alive
        assert worker.is_alive
        assert fleet.queue().lost_total == 0


def _has_logged(broker: Broker, text: str, times: int) -> bool:
    return broker.log.count(text) == times


def _takes(fleet: Fleet) -> bool:
    try:
        return fleet.bind(handlers.echo).enqueue("again").result(timeout=20) == "again"
    except BrokerStoreFull:
        return False


def test_a_disk_that_takes_tables_slowly_makes_clients_wait_and_no_worker_lose_its_tasks(fleet: Fleet) -> None:
    broker = fleet.broker("tests.acceptance.slow_broker", lease_ms=2_000, heartbeat_ms=300)
    worker = fleet.worker(name="w")
    running = fleet.bind(handlers.gated).enqueue(str(fleet.directory), "g")
    until(lambda: running.status().started)
    accepted: list[int] = []
    over = threading.Event()
    producers = [threading.Thread(target=_produce, args=(fleet, accepted, over)) for _ in range(4)]

    for producer in producers:
        producer.start()
    try:
        until(lambda: "store.behind" in broker.log, what="RocksDB holds the broker back")
        time.sleep(3 * LENGTH)
    finally:
        over.set()
        for producer in producers:
            producer.join(60)
    assert not any(producer.is_alive() for producer in producers)
    (fleet.directory / "w").touch()

    assert running.result(timeout=30) == "w"
    until(lambda: "store.caught_up" in broker.log, what="it has caught up")
    assert (running.status().losses, fleet.queue().lost_total) == (0, 0)
    assert fleet.queue("heap").ready >= sum(accepted)
    fleet.worker(queues="heap")
    until(lambda: fleet.is_drained("heap"), 60)
    assert worker.is_alive
    assert broker.terminate() == 0


def _produce(fleet: Fleet, accepted: list[int], over: threading.Event) -> None:
    # What is done at once would be gone before a table is written.
    swallow = fleet.bind(handlers.swallow).using(queue="heap")
    while not over.is_set():
        accepted.append(len(swallow.enqueue_many([(os.urandom(25_000).hex(),) for _ in range(10)])))
