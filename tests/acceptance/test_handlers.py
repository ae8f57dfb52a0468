"""Handlers that misbehave, each in the pools where it makes sense: every one ends as documented.

The table of `tq.worker.executor` says how an attempt ends; after each of them the same
worker process goes on to serve the next task.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import ON_BOTH, Fleet, WorkerProcess, until
from tq import BrokerUnavailable, Task, TaskDead
from tq.app.declared import DeclaredTask
from tq.client import SyncClient, TcpDialer
from tq.core.errors import PayloadTooLarge
from tq.core.lifecycle import TaskState
from tq.core.task import TaskView

LEASE = {"lease_ms": 1_500, "heartbeat_ms": 300}
EVERYWHERE = ("async", "thread", "process")


class Case(NamedTuple):
    """A task without arguments, and how it ends: dead for a reason, after so many attempts, of such a failure."""

    name: str
    reason: str
    attempts: int
    failure: str
    says: str = ""
    pools: tuple[str, ...] = EVERYWHERE

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("raises", "attempts", 2, "ValueError", "as it should"),
    Case("raises_plain", "attempts", 2, "ValueError", "as it should"),
    Case("raises_unspeakable", "attempts", 2, "tests.acceptance.handlers.Unspeakable", "its text could not be made"),
    Case("raises_a_megabyte", "attempts", 2, "ValueError", "xxx\n...\nxxx"),
    Case("raises_surrogates", "attempts", 2, "ValueError", r"\udcff\ud800"),
    Case("raises_fatal", "attempts", 2, "tests.acceptance.handlers.Fatal", "not even"),
    Case("raises_cancelled", "attempts", 2, "asyncio.exceptions.CancelledError", "own accord"),
    Case("raises_stop_iteration", "attempts", 2, "StopIteration"),
    Case("raises_generator_exit", "attempts", 2, "GeneratorExit"),
    Case("recurses", "attempts", 2, "RecursionError", "recursion"),
    Case("exits_politely", "attempts", 2, "SystemExit", "7"),
    Case("exits_politely_plain", "attempts", 2, "SystemExit", "7"),
    Case("interrupts", "attempts", 2, "KeyboardInterrupt"),
    Case("interrupts_plain", "attempts", 2, "KeyboardInterrupt"),
    Case("rejects", "rejected", 1, "Reject", "of no use"),
    Case("returns_reject", "rejected", 1, "Reject", "of no use"),
    Case("rejects_by_type", "rejected", 1, "KeyError", "gone"),
    Case("retries", "attempts", 2, "Retry", "not yet"),
    Case("retries_at_no_time", "attempts", 2, "ValueError", "nan"),
    Case("returns_object", "rejected", 1, "NotSerializable"),
    Case("returns_object_plain", "rejected", 1, "NotSerializable"),
    Case("returns_a_loop", "rejected", 1, "NotSerializable"),
    Case("returns_too_much", "rejected", 1, "PayloadTooLarge", "262144"),
    Case("returns_too_much_plain", "rejected", 1, "PayloadTooLarge", "262144"),
    Case("hangs", "attempts", 1, "TaskTimeout", "0.5 s", ("async", "process")),
    Case("hangs_plain", "attempts", 1, "TaskTimeout", "0.5 s"),
    Case("hangs_deaf", "attempts", 1, "TaskTimeout", "0.5 s", ("thread", "process")),
    Case("hangs_deaf_plain", "attempts", 1, "TaskTimeout", "0.5 s"),
    # A child that dies takes only its own task along: to the queue that is a failed attempt like any other.
    Case("dies", "attempts", 2, "WorkerProcessDied", "exit code 3", ("process",)),
    Case("dies_plain", "attempts", 2, "WorkerProcessDied", "exit code 3", ("process",)),
    Case("segfaults", "attempts", 2, "WorkerProcessDied", "SIGSEGV", ("process",)),
    Case("closes_everything", "attempts", 2, "WorkerProcessDied", "exit code 69", ("process",)),
]


class Served(NamedTuple):
    """A fleet with one worker."""

    fleet: Fleet
    worker: WorkerProcess


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """A broker and a worker for each pool, which all cases share: a harmed worker would fail the next case."""
    served: dict[str, Served] = {}
    try:
        for pool in EVERYWHERE:
            fleet = Fleet(tmp_path_factory.mktemp(pool))
            served[pool] = Served(fleet, fleet.worker_program(pool=pool, drain_ms=0))
            fleet.broker()
            served[pool].worker.start()
        yield served
    finally:
        for each in served.values():
            each.fleet.close()


@pytest.mark.parametrize(
    ("pool", "case"), [(pool, case) for pool in EVERYWHERE for case in CASES if pool in case.pools], ids=str
)
def test_a_handler_that_misbehaves_ends_dead_with_its_reason(pools: dict[str, Served], pool: str, case: Case) -> None:
    fleet, worker = pools[pool]

    handle = fleet.bind(getattr(handlers, case.name)).enqueue()
    with pytest.raises(TaskDead) as caught:
        handle.result(timeout=30)

    view = handle.status()
    assert view.failure is not None
    assert (view.state, view.reason, view.attempts, view.losses) == (TaskState.DEAD, case.reason, case.attempts, 0)
    assert view.failure.type == case.failure
    assert case.says in view.failure.message
    assert len(view.failure.message) <= 2_048
    assert case.failure in str(caught.value)
    assert worker.is_alive
    assert fleet.bind(handlers.echo).enqueue(case.name).result(timeout=10) == case.name
    assert fleet.bind(handlers.echo_plain).enqueue(case.name).result(timeout=10) == case.name


@pytest.mark.parametrize("pool", EVERYWHERE)
def test_a_handler_that_asks_for_a_retry_gets_it_when_it_said(pools: dict[str, Served], pool: str) -> None:
    fleet, _ = pools[pool]

    assert fleet.bind(handlers.retries_once).enqueue().result(timeout=10) == 2


@pytest.mark.parametrize("pool", EVERYWHERE)
def test_arguments_that_do_not_fit_are_rejected_with_the_reason(pools: dict[str, Served], pool: str) -> None:
    fleet, _ = pools[pool]
    tasks = [
        Task.build("echo").args().task(),
        Task.build("echo").args("a", "b", "c").task(),
        Task.build("echo").args(17).task(),
        Task(handlers.echo.spec, b"\xc1 this is no MessagePack"),
        Task(handlers.echo.spec, b""),
    ]

    for handle in fleet.app.enqueue_many(tasks):
        with pytest.raises(TaskDead, match="InvalidArguments"):
            handle.result(timeout=10)
        assert (handle.status().reason, handle.status().attempts) == ("rejected", 1)


def test_a_process_that_a_handler_forked_does_not_hold_its_task_up(pools: dict[str, Served]) -> None:
    fleet, _ = pools["process"]

    assert fleet.bind(handlers.forks).enqueue().result(timeout=10) == "forked"


@pytest.mark.parametrize("pool", EVERYWHERE)
@pytest.mark.parametrize(
    ("end", "code"),
    [("returns", 0), ("exits", 7), ("exits with a word", 1), ("raises", 1), ("is terminated", -15)],
)
def test_a_copy_of_a_worker_that_a_handler_forked_ends_with_the_handler(
    pools: dict[str, Served], pool: str, end: str, code: int
) -> None:
    fleet, worker = pools[pool]

    plain = fleet.bind(handlers.forks_itself).enqueue(end)
    on_a_loop = fleet.bind(handlers.forks_itself_async).enqueue(end)

    assert plain.result(timeout=30) == (True, code)
    assert on_a_loop.result(timeout=30) == (True, code)
    assert worker.is_alive
    assert fleet.bind(handlers.echo).enqueue(end).result(timeout=10) == end


def test_a_copy_of_a_worker_does_not_go_on_in_its_event_loop(pools: dict[str, Served]) -> None:
    fleet, _ = pools["async"]

    assert fleet.bind(handlers.forks_itself_async).enqueue("awaits").result(timeout=30) == (True, 1)


# Each keeps its seat, in threads and in the loop: there are fewer that hang than seats, the cases above included.
@pytest.mark.parametrize(("pool", "hanging"), [("async", 8), ("thread", 1)])
def test_a_hanging_handler_holds_up_no_other(pools: dict[str, Served], pool: str, hanging: int) -> None:
    fleet, _ = pools[pool]
    handles = fleet.bind(handlers.DEAF[pool]).enqueue_many([()] * hanging)

    began = time.monotonic()
    assert fleet.bind(handlers.echo).enqueue("beside").result(timeout=20) == "beside"

    assert time.monotonic() - began < 15
    for handle in handles:
        with pytest.raises(TaskDead, match="TaskTimeout"):
            handle.result(timeout=20)
    # What cannot be ended is there to be seen.
    name = handlers.DEAF[pool].name
    until(
        lambda: any(name in view["stuck"] for view in json.loads(fleet.admin("workers", "--json").stdout)),
        what=f"{name} is shown as stuck",
    )


# ------------------------------------------------------------------------------------ blocked, hung, unknown


@ON_BOTH
def test_a_blocked_loop_is_named_and_keeps_its_leases(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    worker = fleet.worker()

    handle = fleet.bind(handlers.blocks).enqueue("b", 4.0)
    beside = fleet.bind(handlers.waits).enqueue("beside", 0.5)
    until(lambda: fleet.executions("b"))
    document = until(
        lambda: [view for view in json.loads(fleet.admin("workers", "--json").stdout) if view["blocked_by"]]
    )

    assert document[0]["blocked_by"] == "blocks"
    assert document[0]["connected"]
    assert "task blocks has kept the event loop from turning for over a second" in worker.log
    assert handle.result(timeout=20) == "b"
    assert beside.result(timeout=20) == "beside"
    assert (fleet.executions("b"), handle.status().losses) == (1, 0)
    assert fleet.queue().lost_total == 0
    until(lambda: not fleet.app.client.workers()[0].blocked_by)


def test_what_waits_behind_a_blocked_loop_runs_elsewhere_and_what_blocks_it_runs_once(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    fleet.worker(name="blocked", concurrency=1, prefetch=20)
    # A kind that has ended once is not marked before it runs.
    assert fleet.bind(handlers.blocks).enqueue("first", 0.0).result(timeout=20) == "first"

    handle = fleet.bind(handlers.blocks).enqueue("b", 6.0)
    behind = fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(5)])
    until(lambda: fleet.executions("b"))
    fleet.worker(name="other")

    assert [each.result(timeout=20) for each in behind] == [f"e{number}" for number in range(5)]
    assert handle.status().state is TaskState.RUNNING
    assert handle.result(timeout=20) == "b"
    assert [fleet.executions(f"e{number}") for number in range(5)] == [1] * 5
    assert (fleet.executions("b"), handle.status().losses) == (1, 0)


@ON_BOTH
def test_a_process_that_hangs_whole_loses_its_leases(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    hung = fleet.worker(name="hung")
    handle = fleet.bind(handlers.waits).enqueue("w", 0.2)
    until(lambda: fleet.executions("w"))
    hung.suspend()
    fleet.worker(name="other")

    assert handle.result(timeout=20) == "w"

    assert fleet.executions("w") == 2
    assert (handle.status().losses, handle.status().attempts) == (1, 0)


@ON_BOTH
def test_a_name_that_no_worker_knows_waits_is_shown_and_runs_when_one_comes(fleet: Fleet) -> None:
    fleet.broker()
    fleet.worker()

    later = fleet.app.enqueue(Task.build("of_the_future").args("f").priority("high").task())
    beside = fleet.bind(handlers.echo).enqueue_many([(f"e{number}",) for number in range(20)])

    assert [handle.result(timeout=10) for handle in beside] == [f"e{number}" for number in range(20)]
    assert later.status().state is TaskState.READY
    shown = fleet.admin("queue", "show", "default")
    assert "No connected worker has a handler for: of_the_future" in shown.stdout
    assert json.loads(fleet.admin("queue", "show", "default", "--json").stdout)["names_unserved"] == ["of_the_future"]

    fleet.worker(app="tests.acceptance.handlers:future")

    assert later.result(timeout=20) == "f"
    assert (later.status().attempts, later.status().losses) == (0, 0)


# ------------------------------------------------------------------------------------ the client's own limits


@ON_BOTH
def test_a_payload_over_the_limit_is_refused_before_it_is_sent(fleet: Fleet) -> None:
    fleet.broker(payload_bytes_max=4_096)

    with pytest.raises(PayloadTooLarge, match=r"'echo'.*4096 bytes; got 5\d\d\d"):
        fleet.bind(handlers.echo).enqueue("x" * 5_000)

    stats = fleet.app.client.stats()
    assert (stats.enqueued_total, stats.queues) == (0, 0)
    assert fleet.bind(handlers.echo).enqueue("x" * 4_000).status().state is TaskState.READY


def test_without_a_broker_a_client_says_so_within_its_deadline(fleet: Fleet) -> None:
    began = time.monotonic()
    with SyncClient(TcpDialer.of(fleet.url), connect_timeout_s=2) as client, pytest.raises(BrokerUnavailable) as caught:
        client.enqueue(Task.build("echo").args("a").task())

    assert 1 < time.monotonic() - began < 4
    assert f"127.0.0.1:{fleet.port}: Connection refused" in str(caught.value)
    assert "Is tq-broker running?" in str(caught.value)
    assert fleet.admin("ping", "--timeout-ms", "300").returncode == 3


def test_a_worker_without_a_broker_waits_for_one(fleet: Fleet) -> None:
    broker = fleet.broker_program()
    worker = fleet.worker_program().launch()
    until(lambda: "Connection refused; trying again until it works" in worker.log)
    time.sleep(0.5)  # some tries later it has still said so once

    broker.start()

    assert fleet.bind(handlers.echo).enqueue("late").result(timeout=20) == "late"
    assert worker.log.count("Connection refused") == 1
    assert worker.terminate() == 0


# ----------------------------------------------------------------------------------------------------- poison


@ON_BOTH
@pytest.mark.parametrize(
    ("pool", "killer", "status"),
    [("async", handlers.segfaults, -11), ("thread", handlers.dies, 3)],
    ids=["async", "thread"],
)
def test_a_task_that_kills_its_worker_is_found_out_and_harms_no_innocent(
    fleet: Fleet, pool: str, killer: DeclaredTask[[str], Any, None], status: int
) -> None:
    fleet.broker(**LEASE)
    worker = fleet.worker(pool=pool, concurrency=10)
    running = fleet.bind(handlers.waits).enqueue_many([(f"running{number}", 1.0) for number in range(3)])
    until(lambda: sum(words[0] == "waits" for words in fleet.journal) == 3)

    poison = fleet.bind(killer).enqueue("poison")
    prefetched = fleet.bind(handlers.waits).enqueue_many([(f"later{number}", 0.1) for number in range(40)])

    deaths = supervise(fleet, [worker], status)
    check_poison(poison.status(), deaths)
    assert fleet.executions("poison") == deaths
    for handle in [*running, *prefetched]:
        assert handle.status().state is TaskState.COMPLETED
    assert fleet.queue().dead_total == 1


def test_one_bad_input_among_good_ones_is_found_out_before_it_has_killed_every_worker(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    workers = [fleet.worker(name=f"w{number}") for number in range(5)]
    picky = fleet.bind(handlers.picky)

    def have_all_run_one() -> bool:
        for handle in picky.enqueue_many([(f"first{number}",) for number in range(50)]):
            handle.result(timeout=10)
        return len({words[4] for words in fleet.journal}) == len(workers)

    until(have_all_run_one, what="each worker has seen that the handler is a good one")

    poison = picky.enqueue("poison")
    good = picky.enqueue_many([(f"g{number}",) for number in range(100)])

    # Nobody starts them again: what is left of them must be enough.
    until(fleet.is_drained, 60)
    deaths = sum(not worker.is_alive for worker in workers)
    check_poison(poison.status(), deaths)
    assert [handle.status().state for handle in good] == [TaskState.COMPLETED] * 100


def supervise(fleet: Fleet, workers: list[WorkerProcess], status: int) -> int:
    """Start each worker again when it has died, until all is done; return how often one did."""
    deaths = 0

    def is_over() -> bool:
        nonlocal deaths
        for worker in workers:
            if not worker.is_alive:
                deaths += 1
                assert worker.wait() == status
                worker.start()
        return fleet.is_drained()

    until(is_over, 60, "the queue is drained by workers that are restarted when they die")
    return deaths


def check_poison(view: TaskView, deaths: int) -> None:
    assert (view.state, view.reason, view.losses, view.attempts) == (TaskState.DEAD, "losses", 2, 0)
    assert view.failure is not None
    assert view.failure.type == "WorkerLost"
    # It may die before its start is known, twice; from then on it is handed out alone, and each death counts.
    assert 2 <= deaths <= 4


@ON_BOTH
def test_a_poisonous_task_among_processes_harms_nobody_at_all(fleet: Fleet) -> None:
    fleet.broker(**LEASE)
    worker = fleet.worker(pool="process", concurrency=2)

    poison = fleet.bind(handlers.segfaults).enqueue("poison")
    others = fleet.bind(handlers.work_plain).enqueue_many([(f"o{number}", "done", 0.01) for number in range(40)])

    for handle in others:
        assert handle.result(timeout=20).startswith("result of o")
    with pytest.raises(TaskDead, match="SIGSEGV"):
        poison.result(timeout=20)
    assert {(handle.status().losses, handle.status().attempts) for handle in others} == {(0, 0)}
    assert worker.is_alive
