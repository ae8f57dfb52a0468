"""Signals: what runs is let end, what waits goes back, nothing is lost or done twice."""

import os
import signal
import time
from functools import partial

import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import ON_BOTH, Fleet, WorkerProcess, until
from tests.acceptance.load import ATTEMPTS, Producer, check_all_ended_as_meant

POOLS = ["async", "thread", "process"]


@ON_BOTH
@pytest.mark.parametrize(
    ("pool", "number"),
    [("async", signal.SIGTERM), ("async", signal.SIGINT), ("thread", signal.SIGTERM), ("process", signal.SIGINT)],
)
def test_a_worker_that_is_told_to_stop_ends_what_runs_and_hands_the_rest_back(
    fleet: Fleet, pool: str, number: signal.Signals
) -> None:
    fleet.broker()
    worker = fleet.worker(name="leaving", pool=pool, concurrency=1, prefetch=10)
    running = fleet.bind(handlers.GATED[pool]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g"))
    waiting = fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(5)])
    until(lambda: fleet.queue().running == 6, what="five are prefetched")

    worker.tell(number)
    until(lambda: fleet.queue().ready == 5, what="the prefetched ones are handed back")
    assert worker.is_alive
    (fleet.directory / "leaving").touch()

    assert worker.wait() == 0
    assert running.result(timeout=5) == "leaving"
    assert "stopping: what runs has 30 s to end" in worker.log
    assert not fleet.app.client.workers()
    fleet.worker(pool=pool)
    for handle in waiting:
        handle.result(timeout=10)
        assert (handle.status().losses, handle.status().attempts) == (0, 0)
    assert (fleet.executions("g"), running.status().losses) == (1, 0)


@ON_BOTH
def test_a_handler_that_does_not_heed_its_cancellation_does_not_keep_the_process(fleet: Fleet) -> None:
    fleet.broker()
    worker = fleet.worker(drain_ms=100)
    handle = fleet.bind(handlers.hangs_deaf).enqueue()
    until(lambda: handle.status().started)

    began = time.monotonic()
    assert worker.terminate() == 0

    assert time.monotonic() - began < 12
    assert "task hangs_deaf" in worker.log
    assert "ending the process by force: hangs_deaf did not end" in worker.log


@ON_BOTH
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_that_is_told_twice_leaves_at_once_and_its_task_is_tried_elsewhere(fleet: Fleet, pool: str) -> None:
    fleet.broker()
    worker = fleet.worker(name="leaving", pool=pool)
    handle = fleet.bind(handlers.GATED[pool]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g"))

    worker.tell(signal.SIGTERM)
    until(lambda: "stopping" in worker.log)
    worker.tell(signal.SIGTERM)
    began = time.monotonic()
    assert worker.wait() == 0
    assert time.monotonic() - began < 10
    (fleet.directory / "other").touch()
    fleet.worker(name="other", pool=pool)

    assert handle.result(timeout=10) == "other"
    assert (handle.status().attempts, handle.status().losses) == (1, 0)
    assert "WorkerStopped" in worker.log


def test_a_worker_that_waits_for_a_broker_can_be_stopped(fleet: Fleet) -> None:
    worker = fleet.worker_program().launch()
    until(lambda: "trying again" in worker.log)

    assert worker.terminate() == 0


@ON_BOTH
def test_a_broker_restarted_in_good_order_under_load_loses_and_repeats_nothing(fleet: Fleet) -> None:
    broker = fleet.broker()
    for _ in range(2):
        fleet.worker()
    producer = Producer(fleet.url, fleet.bind(handlers.WORK["async"]), seed=1)

    producer.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        done = fleet.queue().completed_total
        until(partial(has_done, fleet, done + 200), what="work is being done")
        assert broker.terminate(number) == 0
        broker.start()
    producer.stop()
    until(fleet.is_drained, 60)

    check_all_ended_as_meant(fleet, producer)
    assert not producer.doubtful
    assert fleet.queue().lost_total == 0
    runs: dict[str, int] = {}
    for _, key, *_ in fleet.journal:
        runs[key] = runs.get(key, 0) + 1
    assert runs == {key: ATTEMPTS[kind] for key, kind in producer.kinds.items()}


def has_done(fleet: Fleet, tasks: int) -> bool:
    return fleet.queue().completed_total > tasks


@ON_BOTH
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("pool", POOLS)
def test_what_ends_while_the_broker_is_down_is_not_done_again(fleet: Fleet, pool: str, how: signal.Signals) -> None:
    broker = fleet.broker()
    worker = fleet.worker(name="w", pool=pool, concurrency=4)
    gated = fleet.bind(handlers.GATED[pool])
    handles = gated.enqueue_many([(str(fleet.directory), f"g{number}") for number in range(4)])
    until(lambda: len(fleet.journal) == 4 and all(handle.status().started for handle in handles))

    broker.tell(how)
    broker.wait()
    (fleet.directory / "w").touch()
    until(lambda: sum(words[0] == "opened" for words in fleet.journal) == 4, what="the handlers have ended")
    broker.start()

    for handle in handles:
        assert handle.result(timeout=20) == "w"
        assert (handle.status().losses, handle.status().attempts) == (0, 0)
    assert [fleet.executions(f"g{number}") for number in range(4)] == [1, 1, 1, 1]
    assert worker.terminate() == 0


def test_a_check_tells_a_worker_that_works_from_one_that_does_not_and_needs_no_broker(fleet: Fleet) -> None:
    broker = fleet.broker()
    state_file = fleet.directory / "state.json"

    def check() -> int:
        return fleet.worker_program(name="probed", state_file=state_file, check=True).launch().wait()

    before = check()
    worker = fleet.worker(name="probed", state_file=state_file, labels="zone=eu")
    until(lambda: b'"connected":true' in state_file.read_bytes())
    connected, listed = check(), fleet.admin("workers").stdout
    broker.terminate()
    until(lambda: b'"connected":false' in state_file.read_bytes())
    without_a_broker = check()
    worker.terminate()

    assert (before, connected, without_a_broker, check()) == (1, 0, 0, 1)
    assert "zone=eu" in listed


def _workers(fleet: Fleet) -> dict[str, int]:
    return {view.info.name: view.info.pid for view in fleet.app.client.workers() if view.connected}


@pytest.fixture
def two(fleet: Fleet) -> WorkerProcess:
    """A worker of two processes, both connected."""
    fleet.broker(lease_ms=2_000, heartbeat_ms=300)
    supervisor = fleet.worker(name="two", processes=2, concurrency=1)
    until(lambda: sorted(_workers(fleet)) == ["two-1", "two-2"])
    return supervisor


def test_a_worker_process_that_dies_is_replaced_and_the_others_work_on(fleet: Fleet, two: WorkerProcess) -> None:
    before = _workers(fleet)

    os.kill(before["two-1"], signal.SIGKILL)
    until(lambda: _workers(fleet).get("two-1", before["two-1"]) != before["two-1"], what="another takes its place")

    assert _workers(fleet)["two-2"] == before["two-2"]
    assert f"worker process {before['two-1']} (number 1) ended: signal 9; another starts in 1 s" in two.log
    assert two.terminate() == 0


def test_a_signal_to_every_process_at_once_lets_what_runs_end(fleet: Fleet, two: WorkerProcess) -> None:
    running = fleet.bind(handlers.GATED["async"]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g"))

    os.killpg(two.pid, signal.SIGTERM)
    until(lambda: len(_workers(fleet)) == 1, what="the idle one leaves")
    (left,) = _workers(fleet)
    (fleet.directory / left).touch()

    assert two.wait() == 0
    assert running.result(timeout=5) == left
    assert "leaving at once" not in two.log


def test_a_second_signal_to_the_supervisor_makes_all_leave_at_once(fleet: Fleet, two: WorkerProcess) -> None:
    handle = fleet.bind(handlers.GATED["async"]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g"))

    two.tell(signal.SIGINT)
    until(lambda: "stopping: what runs has 30 s to end" in two.log)
    two.tell(signal.SIGINT)

    assert two.wait(10) == 0
    assert handle.status().attempts == 1


def test_worker_processes_leave_when_their_supervisor_is_killed(fleet: Fleet, two: WorkerProcess) -> None:
    two.kill()

    until(lambda: not _workers(fleet))


def test_several_processes_end_a_burst_together(fleet: Fleet) -> None:
    fleet.broker()
    handles = fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(20)])

    worker = fleet.worker_program(processes=2, burst=True).launch()

    assert worker.wait() == 0
    assert [handle.result(timeout=1) for handle in handles] == [f"e{number}" for number in range(20)]


def test_an_app_that_is_not_there_ends_the_supervisor(fleet: Fleet) -> None:
    worker = fleet.worker_program(app="nowhere_to_be_found", processes=2).launch()

    assert worker.wait() == 2
    assert "there is no module 'nowhere_to_be_found'" in worker.log
