"""kill -9 of broker, workers and both, at random moments under load; and a worker that comes back from the dead.

What was acknowledged ends once, as it was meant to; nothing is enqueued twice; what a
stale worker says changes nothing.

`ACCEPTANCE_LENGTH` makes the killing that many times as long; `make chaos` does.
"""

import os
import random
import time

import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import ON_BOTH, Broker, Fleet, Program, WorkerProcess, until
from tests.acceptance.load import Producer, check_all_ended_as_meant
from tq.core.lifecycle import TaskState

pytestmark = ON_BOTH

LENGTH = int(os.environ.get("ACCEPTANCE_LENGTH", "1"))
CHAOS_S = 3.0 * LENGTH
DEEDS_MIN = 3 * LENGTH
LEASE = {"lease_ms": 1_500, "heartbeat_ms": 300}


def wreak(draw: random.Random, broker: Broker, workers: list[WorkerProcess]) -> list[str]:
    """Kill and start again, for a while; return what was done."""
    deeds: list[str] = []
    until_s = time.monotonic() + CHAOS_S
    # However slowly the machine starts them again, some are killed.
    while time.monotonic() < until_s or len(deeds) < DEEDS_MIN:
        time.sleep(draw.uniform(0.1, 0.7))
        match draw.choice(["broker", "worker", "both", "all"]):
            case "broker":
                victims: list[Program] = [broker]
            case "worker":
                victims = [draw.choice(workers)]
            case "both":
                victims = [broker, draw.choice(workers)]
            case _:
                victims = [broker, *workers]
        draw.shuffle(victims)
        for victim in victims:
            victim.kill()
        time.sleep(draw.uniform(0, 0.3))
        if broker in victims:
            broker.start()
        for victim in victims:
            if isinstance(victim, WorkerProcess):
                victim.launch()
        deeds.append("+".join(victim.name for victim in victims))
    return deeds


@pytest.mark.parametrize(("pool", "seed"), [("async", 1), ("async", 2), ("thread", 3), ("process", 4), ("process", 5)])
def test_what_was_acknowledged_ends_once_whatever_is_killed(fleet: Fleet, pool: str, seed: int) -> None:
    broker = fleet.broker(**LEASE)
    workers = [fleet.worker(pool=pool, name=f"w{number}", drain_ms=1_000) for number in range(2)]
    producer = Producer(fleet.url, fleet.bind(handlers.WORK[pool]), seed)

    producer.start()
    deeds = wreak(random.Random(seed), broker, workers)
    producer.stop()
    until(fleet.is_drained, 60, f"drained after {deeds}")

    assert len(producer.acknowledged) > 200, deeds
    check_all_ended_as_meant(fleet, producer)
    # The last to be killed may only be starting: until then a SIGTERM ends it as it does any program.
    until(lambda: connected(fleet) == {worker.name for worker in workers}, what=f"all serve again after {deeds}")
    for worker in workers:
        assert worker.is_alive
        assert worker.terminate() == 0
    assert broker.terminate() == 0


def connected(fleet: Fleet) -> set[str]:
    """Return the names of the workers that are there now."""
    return {view.info.name for view in fleet.app.client.workers() if view.connected}


@pytest.mark.parametrize("pool", ["async", "thread", "process"])
def test_the_outcome_of_a_worker_that_was_given_up_is_refused(fleet: Fleet, pool: str) -> None:
    fleet.broker(**LEASE)
    stale = fleet.worker(name="stale", pool=pool)
    handle = fleet.bind(handlers.GATED[pool]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") == 1 and handle.status().started)

    stale.suspend()
    fresh = fleet.worker(name="fresh", pool=pool)
    until(lambda: fleet.executions("g") == 2, what="the task runs elsewhere")
    (fleet.directory / "stale").touch()  # its handler returns as soon as it goes on
    if pool == "process":
        # It went on while its worker was suspended, whose loop finds the outcome before what the broker said.
        until(lambda: ["opened", "g"] in [words[:2] for words in fleet.journal])
    stale.resume()
    until(lambda: "its lease is lost" in stale.log or "too late" in stale.log or "registers anew" in stale.log)
    (fleet.directory / "fresh").touch()

    assert handle.result(timeout=20) == "fresh"
    assert fresh.terminate() == 0
    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    view = handle.status()
    assert (view.state, view.losses, view.attempts) == (TaskState.COMPLETED, 1, 0)
    assert fleet.queue().completed_total == 2
    assert stale.terminate() == 0


def test_an_idle_worker_that_was_suspended_past_its_lease_serves_again(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    worker = fleet.worker()
    worker.suspend()
    until(lambda: not fleet.app.client.workers(), what="the broker gives the worker up")

    worker.resume()

    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    assert worker.terminate() == 0


def test_a_worker_given_up_while_its_broker_was_killed_too_changes_nothing(fleet: Fleet) -> None:
    broker = fleet.broker(**LEASE)
    stale = fleet.worker(name="stale")
    handle = fleet.bind(handlers.gated).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") == 1 and handle.status().started)

    stale.suspend()
    broker.kill()
    broker.start()
    fleet.worker(name="fresh")
    until(lambda: fleet.executions("g") == 2, what="the task runs elsewhere")
    (fleet.directory / "fresh").touch()
    assert handle.result(timeout=20) == "fresh"
    broker.kill()
    broker.start()
    (fleet.directory / "stale").touch()
    stale.resume()

    until(lambda: stale.log.count("connected to broker") >= 2, what="the worker comes back")
    assert handle.status().state is TaskState.COMPLETED
    assert fleet.bind(handlers.echo).enqueue("after").result(timeout=20) == "after"
    assert fleet.app.handle(handle.id).result(timeout=5) == "fresh"
    assert fleet.queue().completed_total == 2
