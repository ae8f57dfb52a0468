"""The connections of threads and processes: one a process, made once for all its threads."""

import multiprocessing
import os
import threading
from functools import partial

import pytest

from tests.client.scripted import PATIENCE_S, ScriptedBroker, drop, silence
from tests.client.test_sync_connection import Threads, until
from tq.client.dialer import TcpDialer
from tq.client.sync_client import SyncClient
from tq.core.errors import BrokerUnavailable, UsageError
from tq.core.ids import TaskId
from tq.core.task import Task, TaskSpec
from tq.protocol import messages as m
from tq.protocol.messages import Type

# Newer Pythons warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

SPEC = TaskSpec("a")


def client_of(scripted: ScriptedBroker, connect_timeout_s: float = 5.0) -> SyncClient:
    return SyncClient(TcpDialer.of(scripted.url), connect_timeout_s=connect_timeout_s)


def test_threads_share_one_connection(scripted: ScriptedBroker) -> None:
    with client_of(scripted) as client:
        threads = Threads()
        for _ in range(20):
            threads.start(lambda: [client.enqueue(Task(SPEC, b"")) for _ in range(10)])

        made = threads.outcomes()

    assert scripted.connections == 1
    assert {task_id for task_ids in made for task_id in task_ids} == set(scripted.tasks)  # type: ignore[attr-defined]
    assert len(scripted.tasks) == 200


def test_threads_survive_lost_connections(scripted: ScriptedBroker) -> None:
    scripted.next(Type.ENQUEUE, drop, scripted._answer, drop, drop, scripted._answer, drop)

    with client_of(scripted) as client:
        threads = Threads()
        for _ in range(20):
            threads.start(lambda: [client.enqueue(Task(SPEC, b"")) for _ in range(5)])
        made = threads.outcomes()

    assert {task_id for task_ids in made for task_id in task_ids} == set(scripted.tasks)  # type: ignore[attr-defined]
    assert len(scripted.tasks) == 100


@pytest.mark.parametrize("losses", [1, 2, 5])
def test_frames_on_their_way_keep_their_order_over_several_lost_connections(
    scripted: ScriptedBroker, losses: int
) -> None:
    scripted.next(Type.ENQUEUE, scripted._answer, *[drop] * losses)

    with client_of(scripted) as client:
        # Frames so long that a connection is lost while the later ones are still being sent.
        task_ids = client.enqueue_many(Task(SPEC, bytes(250_000)) for _ in range(12))

    assert list(scripted.tasks) == task_ids
    assert scripted.connections == 1 + losses


def test_threads_wait_for_results_side_by_side(scripted: ScriptedBroker) -> None:
    with client_of(scripted) as client:
        task_ids = client.enqueue_many(Task(SPEC, b"") for _ in range(20))
        threads = Threads()
        for task_id in task_ids:
            threads.start(partial(client.wait, task_id, PATIENCE_S))
        scripted.wait_for(Type.WAIT, 20)
        for task_id in reversed(task_ids):
            scripted.complete(task_id)

        assert threads.outcomes() == [scripted.results[task_id] for task_id in task_ids]


def test_an_absent_broker_is_told_to_every_thread(scripted: ScriptedBroker) -> None:
    scripted.stop()
    client = client_of(scripted, connect_timeout_s=0.1)
    threads = Threads()
    for _ in range(5):
        threads.start(client.ping)

    outcomes = threads.outcomes()

    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable] * 5
    assert all("no broker within 0.1 s" in str(outcome) for outcome in outcomes)
    client.close()


def test_a_restart_of_the_broker_is_noticed_before_anything_is_sent(scripted: ScriptedBroker) -> None:
    with client_of(scripted) as client:
        client.ping()
        scripted.stop()
        scripted.start()

        # What may not be sent twice is sent once, to the new one.
        assert client.cancel([TaskId(b"x" * 16)])

    assert scripted.connections == 2


def test_closing_ends_what_waits_in_other_threads(scripted: ScriptedBroker) -> None:
    scripted.next(Type.PING, silence)
    client = client_of(scripted)
    threads = Threads()
    threads.start(client.ping)
    scripted.wait_for(Type.PING)

    client.close()

    assert [type(outcome) for outcome in threads.outcomes()] == [UsageError]


def test_a_forked_process_opens_a_connection_of_its_own(scripted: ScriptedBroker) -> None:
    with client_of(scripted) as client:
        client.ping()
        reading, writing = os.pipe()

        child = os.fork()
        if child == 0:
            try:
                os.write(writing, client.enqueue(Task(SPEC, b"child")))
                client.close()
            finally:
                os._exit(0)
        theirs = os.read(reading, 16)
        os.waitpid(child, 0)
        ours = client.enqueue(Task(SPEC, b"parent"))
        os.close(reading)
        os.close(writing)

    assert scripted.connections == 2
    assert {task_id: payload for task_id, (_, payload) in scripted.tasks.items()} == {theirs: b"child", ours: b"parent"}


def test_a_fork_in_the_middle_of_a_request_leaves_it_alone(scripted: ScriptedBroker) -> None:
    with client_of(scripted) as client:
        task_id = client.enqueue(Task(SPEC, b""))
        threads = Threads()
        threads.start(partial(client.wait, task_id, PATIENCE_S))
        scripted.wait_for(Type.WAIT)
        connection = client._link._here().current
        assert connection is not None
        until(lambda: connection._is_read)

        # The lock of the connection is held by another thread, which does not exist in the child.
        with connection._lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if client.ping() == m.Pong("scripted", 1_700_000_000_000) else 1)
        _, status = os.waitpid(child, 0)
        scripted.complete(task_id)

        assert os.waitstatus_to_exitcode(status) == 0
        assert threads.outcomes() == [scripted.results[task_id]]
    assert scripted.connections == 2


def _ping_from_many_threads(url: str, pongs: "multiprocessing.Queue[int]", client: SyncClient) -> None:
    threads = [threading.Thread(target=lambda: pongs.put(len(client.ping().server))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_threads_of_a_forked_process_share_its_connection(scripted: ScriptedBroker) -> None:
    context = multiprocessing.get_context("fork")
    pongs: multiprocessing.Queue[int] = context.Queue()
    with client_of(scripted) as client:
        client.ping()
        child = context.Process(target=_ping_from_many_threads, args=(scripted.url, pongs, client))
        child.start()
        child.join(PATIENCE_S)

        assert child.exitcode == 0
        assert [pongs.get(timeout=PATIENCE_S) for _ in range(5)] == [len("scripted")] * 5
        assert client.ping() == m.Pong("scripted", 1_700_000_000_000)
    assert scripted.connections == 2


def test_a_closed_client_is_closed_in_its_children_too(scripted: ScriptedBroker) -> None:
    client = client_of(scripted)
    client.ping()
    client.close()

    child = os.fork()
    if child == 0:
        with pytest.raises(UsageError):
            client.ping()
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
