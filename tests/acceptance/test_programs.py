"""The programs together, as a user runs them: broker, worker and admin in processes of their own."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.programs import environment, run, started
from tq.client import SyncClient, TcpDialer
from tq.core.retry import RetryPolicy
from tq.core.task import Task
from tq.testing.programs import Program, broker_url, tq_command

pytestmark = pytest.mark.acceptance

SHOP = """\
import asyncio
import logging

from tq import App, RetryPolicy

app = App()
log = logging.getLogger("shop")


@app.task(queue="mail")
def send(to):
    log.info("sending to %s", to)
    return f"private {to}"


@app.task(queue="mail", retry=RetryPolicy(max_attempts=1))
def fail():
    raise ValueError("there is no such mailbox")


@app.task(queue="slow")
async def sleep(seconds):
    log.info("sleeping")
    await asyncio.sleep(seconds)
"""


class Shop(NamedTuple):
    """A running broker, and a folder with an app."""

    broker: Program
    url: str
    folder: Path

    def enqueue(self, name: str, *args: object, queue: str = "mail") -> str:
        """Enqueue one task of the app; return its id as hexadecimal digits."""
        task = Task.build(f"shop.{name}").args(*args).queue(queue).retry(RetryPolicy(max_attempts=1)).task()
        with SyncClient(TcpDialer.of(self.url)) as client:
            return client.enqueue(task).hex()

    def work(self, *words: str) -> int:
        """Run a worker until the queues are empty."""
        return run("worker", "-A", "shop", "--burst", *words, cwd=self.folder, TQ_URL=self.url).code


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "shop.py").write_text(SHOP)
    with started("broker", "--listen", "127.0.0.1:0", folder=tmp_path) as broker:
        yield Shop(broker, broker_url(broker), tmp_path)


def test_tasks_are_enqueued_run_and_looked_at(shop: Shop) -> None:
    sent, failed = shop.enqueue("send", "a@b.c"), shop.enqueue("fail")

    before = run("admin", "queues", "--json", TQ_URL=shop.url)
    worked = shop.work()
    after = run("admin", "--json", "queue", "show", "mail", TQ_URL=shop.url)
    one = run("admin", "task", "show", sent, "--json", TQ_URL=shop.url)
    dead = run("admin", "dead", "list", TQ_URL=shop.url)
    why = run("admin", "task", "show", failed, TQ_URL=shop.url)

    assert (before.code, before.document[0]["ready"]) == (0, 2)
    assert worked == 0
    assert (after.document["ready"], after.document["completed_total"], after.document["dead"]) == (0, 1, 1)
    assert one.document["state"] == "completed"
    assert "private" not in one.out
    assert "ValueError: there is no such mailbox" in dead.out
    assert 'shop.py", line' in why.out


def test_dead_letters_are_redriven_and_purged(shop: Shop) -> None:
    shop.enqueue("fail")
    shop.work()

    redriven = run("admin", "dead", "redrive", "--queue", "mail", "--json", TQ_URL=shop.url)
    shop.work()
    unasked = run("admin", "dead", "purge", "--queue", "mail", TQ_URL=shop.url)
    purged = run("admin", "dead", "purge", "--queue", "mail", "--yes", "--json", TQ_URL=shop.url)

    assert redriven.document == {"action": "redrive", "tasks": 1}
    assert unasked.code == 2
    assert "add --yes" in unasked.err
    assert purged.document == {"action": "purge", "tasks": 1}


def test_the_admin_tells_errors_by_exit_code(shop: Shop) -> None:
    missing = run("admin", "queue", "show", "nowhere", "--json", TQ_URL=shop.url)
    wrong = run("admin", "queue", "drop", TQ_URL=shop.url)
    refused = run("admin", "task", "cancel", "018f4e2c-7b1a-7000-8000-3f2a9c1b5d6e", TQ_URL=shop.url)

    assert (missing.code, missing.out) == (1, "")
    assert json.loads(missing.err)["error"]["code"] == "queue_not_found"
    assert (wrong.code, wrong.out) == (2, "")
    assert refused.code == 1


def test_the_admin_says_when_no_broker_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    ended = run("admin", "ping", "--url", f"tq://127.0.0.1:{port}", "--timeout-ms", "300")

    assert (ended.code, ended.out) == (3, "")
    assert str(port) in ended.err


def test_the_admin_prints_no_colours_into_a_pipe(shop: Shop) -> None:
    shop.enqueue("send", "a@b.c")

    ended = run("admin", "tasks", TQ_URL=shop.url)

    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert ended.out.splitlines()[0].split()[:3] == ["ID", "NAME", "QUEUE"]


def test_a_reader_that_has_seen_enough_is_no_error(shop: Shop) -> None:
    shop.enqueue("send", "a@b.c")
    words = tq_command("tq-admin", "tasks", "--json", "--url", shop.url)

    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as admin:
        assert admin.stdout is not None
        assert admin.stderr is not None
        admin.stdout.close()
        said = admin.stderr.read()

    assert (admin.returncode, said) == (0, b"")


def test_a_stopped_broker_keeps_its_tasks(shop: Shop) -> None:
    shop.enqueue("send", "a@b.c")

    code = shop.broker.end()
    with started("broker", "--listen", "127.0.0.1:0", folder=shop.folder) as again:
        listed = run("admin", "queues", "--json", "--url", broker_url(again))
        interrupted = again.end(signal.SIGINT)

    assert code == 0
    assert listed.document[0]["ready"] == 1
    assert interrupted == 0


def test_a_second_broker_of_the_same_data_is_refused(shop: Shop) -> None:
    ended = run("broker", "--listen", "127.0.0.1:0", cwd=shop.folder)

    assert (ended.code, ended.out) == (3, "")
    assert "the data cannot be opened" in ended.err


def test_a_second_broker_at_the_same_address_is_refused(shop: Shop, tmp_path: Path) -> None:
    ended = run("broker", "--store", "memory", "--listen", shop.url.removeprefix("tq://"), cwd=tmp_path)

    assert (ended.code, ended.out) == (4, "")
    assert "cannot be listened on" in ended.err


def test_only_a_broker_of_this_machine_starts_without_a_word(tmp_path: Path) -> None:
    words = ["--store", "memory", "--listen", "127.0.0.2:0", "--log-format", "json"]
    with started("broker", *words, folder=tmp_path) as quiet:
        broker_url(quiet)

    with started("broker", "--store", "memory", "--listen", "0.0.0.0:0", folder=tmp_path) as refused:
        code = refused.wait()

    assert "INSECURE" not in quiet.log_text
    assert [json.loads(line)["logger"] for line in quiet.log_text.splitlines()[:1]] == ["tq.broker"]
    assert code == 2


def test_a_worker_lets_what_runs_end_when_it_is_stopped(shop: Shop) -> None:
    task_id = shop.enqueue("sleep", 1.0, queue="slow")

    with started("worker", "-A", "shop:app", folder=shop.folder, TQ_URL=shop.url) as worker:
        worker.wait_for_log("sleeping")
        code = worker.end()

    assert code == 0
    shown = run("admin", "task", "show", task_id, "--json", TQ_URL=shop.url).document
    assert (shown["state"], shown["attempts"]) == ("completed", 0)


def test_a_second_signal_makes_a_worker_leave_at_once(shop: Shop) -> None:
    task_id = shop.enqueue("sleep", 600, queue="slow")

    with started("worker", "-A", "shop:app", folder=shop.folder, TQ_URL=shop.url) as worker:
        worker.wait_for_log("sleeping")
        worker.send(signal.SIGTERM)
        worker.wait_for_log("stopping")
        code = worker.end()

    assert code == 0
    shown = run("admin", "task", "show", task_id, "--json", TQ_URL=shop.url).document
    assert shown["state"] in {"ready", "scheduled", "dead"}


@pytest.mark.parametrize("pool", ["async", "thread", "process"])
def test_a_worker_logs_which_task_speaks(shop: Shop, pool: str) -> None:
    task_id = shop.enqueue("sleep", 0, queue="slow")

    words = ["-A", "shop", "-P", pool, "-l", "info", "--log-format", "json"]
    with started("worker", *words, folder=shop.folder, TQ_URL=shop.url) as worker:
        worker.wait_for_log("sleeping")
        worker.end()

    (said,) = [entry for entry in map(json.loads, worker.log_text.splitlines()) if entry["event"] == "sleeping"]
    assert said["logger"] == "shop"
    assert said["task_id"].replace("-", "") == task_id
    assert said["task_name"] == "shop.sleep"


def test_a_worker_without_its_app_says_why(shop: Shop) -> None:
    (shop.folder / "broken.py").write_text("import nothing_of_this_name\n")

    missing = run("worker", "-A", "nowhere", cwd=shop.folder)
    broken = run("worker", "-A", "broken", cwd=shop.folder)

    assert (missing.code, broken.code) == (2, 2)
    assert "there is no module 'nowhere'" in missing.err
    assert "nothing_of_this_name" in broken.err
    assert 'broken.py", line 1' in broken.err


def test_processes_run_tasks_too(shop: Shop) -> None:
    shop.enqueue("send", "a@b.c")

    code = shop.work("-P", "process", "-c", "1")

    assert code == 0
    assert run("admin", "queues", "--json", TQ_URL=shop.url).document[0]["completed_total"] == 1
