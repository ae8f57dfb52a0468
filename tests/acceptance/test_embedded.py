"""A broker on a directory, shared by programs that come and go: who owns it, who joins, what is said.

The tests of the daemon that run on it too are marked `ON_BOTH`.
"""

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance import handlers
from tests.acceptance.fleet import ROOT, EmbeddedFleet, Fleet, Program, until
from tests.acceptance.load import Producer, check_all_ended_as_meant
from tests.acceptance.programs import run
from tq import App, BrokerUnavailable
from tq.core.errors import ConfigError, StoreLocked
from tq.store.ownership import Ownership
from tq.testing.programs import free_port

pytestmark = pytest.mark.parametrize("fleet", ["embedded"], indirect=True)
LEASE = {"lease_ms": 1_500, "heartbeat_ms": 300}


def script(fleet: EmbeddedFleet, text: str, *flags: str) -> subprocess.Popen[str]:
    """Start a program with ``app`` and ``echo`` of the fleet's directory."""
    beginning = (
        "import os, sys, time, threading\nfrom tests.acceptance import handlers\nfrom tq import App\n"
        f"from tq.app.declared import DeclaredTask\napp = App({fleet.url!r})\n"
        "echo = DeclaredTask(handlers.echo._handler, handlers.echo.spec, app._clients)\n"
    )
    return subprocess.Popen(
        [sys.executable, *flags, "-c", beginning + textwrap.dedent(text)],
        cwd=ROOT,
        env=fleet._environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def owner_pid(fleet: EmbeddedFleet) -> int:
    """Who has the directory, or had it last."""
    return int((fleet.data / "owner").read_text().split()[2].rstrip(","))


# --------------------------------------------------------------------------------------------- owning and joining


def test_programs_share_a_directory_in_whatever_order_they_come(fleet: EmbeddedFleet) -> None:
    worker = fleet.worker()  # the first: it owns

    handle = fleet.bind(handlers.echo).enqueue("a")

    assert handle.result(timeout=20) == "a"
    assert owner_pid(fleet) == worker.pid
    assert "default" in fleet.admin("queues").stdout
    assert worker.terminate() == 0
    waiting = fleet.bind(handlers.echo).enqueue("b")
    assert owner_pid(fleet) == os.getpid()
    fleet.app.close()
    again = fleet.worker()
    assert waiting.result(timeout=20) == "b"
    assert owner_pid(fleet) == again.pid


def test_only_its_user_can_reach_what_is_made(fleet: EmbeddedFleet) -> None:
    fleet.app.client.stats()

    assert stat.S_IMODE(fleet.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((fleet.data / "tq.sock").stat().st_mode) == 0o600
    assert (fleet.data / "tq.sock").is_socket()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_result_that_is_waited_for_arrives_although_the_owner_ends(fleet: EmbeddedFleet, how: signal.Signals) -> None:
    owner = fleet.broker(**LEASE)
    worker = fleet.worker(name="w")
    handle = fleet.bind(handlers.GATED["async"]).enqueue(str(fleet.directory), "g")
    until(lambda: fleet.executions("g") == 1 and handle.status().started)
    results: list[str] = []
    waiter = threading.Thread(target=lambda: results.append(handle.result(timeout=30)))
    waiter.start()

    owner.tell(how)
    owner.wait()
    (fleet.directory / "w").touch()
    waiter.join(40)

    assert results == ["w"]
    assert fleet.executions("g") == 1
    # Whoever has the directory now can be joined by others, also after an owner that could not tidy up.
    assert fleet.admin("ping").returncode == 0
    assert worker.is_alive


def test_a_result_is_awaited_on_an_event_loop_over_a_change_of_owners(fleet: EmbeddedFleet) -> None:
    owner = fleet.broker(**LEASE)
    waiting = script(
        fleet,
        """
        import asyncio
        async def main():
            async with App(app.url) as here:
                task = DeclaredTask(handlers.echo._handler, handlers.echo.spec, here._clients)
                handle = await task.aenqueue("awaited")
                print("enqueued", flush=True)
                print(await asyncio.wait_for(handle.aresult(), 30))
        asyncio.run(main())
        """,
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "enqueued\n"

    owner.kill()
    fleet.worker()

    assert ended(waiting) == (0, "awaited\n", "")


def test_close_hands_the_directory_over_and_the_app_can_be_used_again(fleet: EmbeddedFleet) -> None:
    fleet.app.client.stats()
    assert owner_pid(fleet) == os.getpid()

    fleet.app.close()

    assert not (fleet.data / "tq.sock").exists()
    other = fleet.broker()
    assert owner_pid(fleet) == other.pid
    fleet.app.client.stats()
    assert owner_pid(fleet) == other.pid


def test_who_gets_the_directory_finds_no_socket_of_an_owner_that_ended_well(fleet: EmbeddedFleet) -> None:
    fleet.app.client.stats()
    found: list[bool] = []

    def take() -> None:
        while not found:
            with suppress(StoreLocked):
                taken = Ownership(fleet.data, "the next")
                found.append((fleet.data / "tq.sock").exists())
                taken.release()

    taker = threading.Thread(target=take)
    taker.start()
    fleet.app.close()
    taker.join(20)

    assert found == [False]


def test_two_apps_of_a_process_share_a_broker_until_both_are_closed(fleet: EmbeddedFleet) -> None:
    with App(fleet.url) as other:
        fleet.app.client.stats()
        other.client.stats()

        fleet.app.close()

        assert (fleet.data / "tq.sock").exists()
        other.client.stats()
    assert not (fleet.data / "tq.sock").exists()


def test_a_path_too_long_for_a_socket_is_no_hindrance(fleet: EmbeddedFleet) -> None:
    deep = fleet.directory.joinpath(*["long" * 25] * 3)
    with App(f"file:{deep}") as app:
        app.client.stats()
        done = run("admin", "ping", "--url", f"file:{deep}")

    assert done.code == 0
    assert "opened it for this command" not in done.err


def test_a_relative_directory_is_that_of_the_start(fleet: EmbeddedFleet) -> None:
    moved = script(
        fleet,
        f"""
        os.chdir({str(fleet.directory)!r})
        app = App("file:./here")
        os.chdir("/")
        print(app.client.stats() is not None, app.url)
        """,
    )

    assert ended(moved) == (0, f"True file:{fleet.directory}/here\n", "")


# ------------------------------------------------------------------------------------------------------ racing


RACER = """
for turn in range(40):
    sys.stdin.readline()
    with App(sys.argv[1]) as racer:
        racer.client.queues()
        from tq.app.embedded import _here
        owns = bool(_here._brokers)
    print(int(owns), flush=True)
"""


def test_of_several_that_race_for_a_directory_one_owns_it_and_the_others_join(fleet: EmbeddedFleet) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", f"import os, sys\nfrom tq import App\n{RACER}", fleet.url],
            cwd=ROOT,
            env=fleet._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        owned = 0
        for _ in range(40):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            for racer in racers:
                assert racer.stdout is not None
                word = racer.stdout.readline()
                assert word in {"0\n", "1\n"}, "a racer failed"
                owned += int(word)
    finally:
        for racer in racers:
            racer.communicate(timeout=60)

    assert [racer.returncode for racer in racers] == [0, 0, 0]
    # Each turn had an owner; who is overtaken by an owner's close owns after it.
    assert owned >= 40


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_owners_are_killed_under_load_nothing_acknowledged_is_lost(fleet: EmbeddedFleet, seed: int) -> None:
    draw = random.Random(seed)
    programs: list[Program] = [fleet.broker(**LEASE), fleet.broker(), fleet.worker(), fleet.worker(pool="thread")]
    producer = Producer(fleet.url, fleet.bind(handlers.WORK["async"]), seed)

    producer.start()
    kills = 0
    until_s = time.monotonic() + 4
    while time.monotonic() < until_s or kills < 8:
        time.sleep(draw.uniform(0.05, 0.4))
        # The owner itself, if it can be killed: this process is the owner at times.
        victim = next(
            (each for each in programs if each.is_alive and each.pid == owner_pid(fleet)), draw.choice(programs)
        )
        victim.kill()
        victim.launch()
        kills += 1
    producer.stop()
    until(fleet.is_drained, 60)

    assert len(producer.acknowledged) > 100
    check_all_ended_as_meant(fleet, producer)


@pytest.mark.parametrize("after_ms", [0, 5, 10, 20, 30, 50, 80])
def test_an_owner_killed_while_it_makes_the_data_leaves_it_to_the_next(fleet: EmbeddedFleet, after_ms: int) -> None:
    first = script(
        fleet,
        """
        import tq.broker.embedded, tq.store.rocks
        print("ready", flush=True)
        app.client.stats()
        time.sleep(60)
        """,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"

    time.sleep(after_ms / 1_000)
    first.kill()
    first.communicate()

    fleet.bind(handlers.echo).enqueue("first")
    assert fleet.queue().ready == 1


# ------------------------------------------------------------------------------------------------------- forks


def test_a_fork_of_the_owner_joins_it_and_keeps_nothing_of_it_open(fleet: EmbeddedFleet) -> None:
    parent = script(
        fleet,
        """
        echo.enqueue("of the parent")
        child = os.fork()
        if child == 0:
            echo.enqueue("of the child")
            print("child", app.client.queues("default")[0].ready, flush=True)
            sys.exit(3)  # as a web server's child ends: with the interpreter's whole end
        print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print("parent", app.client.queues("default")[0].ready, flush=True)
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(os.getpid(), 9)
        """,
    )
    try:
        lines = [parent.stdout.readline() for _ in range(3)] if parent.stdout else []

        assert lines == ["child 2\n", "ended 3\n", "parent 2\n"]
        assert parent.wait(30) == -9
        # The fork that sleeps has copies of nothing: the next owner is found at once, and has it all.
        assert fleet.queue().ready == 2
        assert owner_pid(fleet) == os.getpid()
    finally:
        for left in fleet._marked():
            left.kill()
        parent.communicate()


def test_forks_of_a_program_that_had_no_broker_share_the_directory_by_themselves(fleet: EmbeddedFleet) -> None:
    parent = script(
        fleet,
        """
        children = []
        for number in range(3):  # as a web server forks: it has imported the app, and enqueued nothing
            child = os.fork()
            if child == 0:
                for turn in range(20):
                    echo.enqueue(f"{number} {turn}")
                sys.exit(0)
            children.append(child)
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        print(app.client.queues("default")[0].ready)
        """,
    )

    assert ended(parent) == (0, "[0, 0, 0]\n60\n", "")


def test_a_fork_whose_owner_is_gone_says_why_it_cannot_own(fleet: EmbeddedFleet) -> None:
    parent = script(
        fleet,
        """
        echo.enqueue("of the parent")
        if os.fork() == 0:
            app.client._link._connect_timeout_s = 1.0
            while os.path.exists(app.url.removeprefix("file:") + "/tq.sock"):
                time.sleep(0.01)
            try:
                app.client.stats()
            except Exception as error:
                print(error, flush=True)
            os._exit(0)
        """,
    )

    _, out, err = ended(parent)

    assert "this one was forked from one that had a broker" in out
    assert err == ""


# ------------------------------------------------------------------------------------------------------ the end


@pytest.mark.parametrize("flags", [(), ("-X", "dev", "-W", "ignore::ResourceWarning")])
def test_an_owner_ends_in_good_order_without_a_word_under_load(fleet: EmbeddedFleet, flags: tuple[str, ...]) -> None:
    worker = fleet.worker_program()
    busy = script(
        fleet,
        """
        def enqueue():
            with App(app.url) as mine:
                task = DeclaredTask(handlers.echo._handler, handlers.echo.spec, mine._clients)
                while True:
                    task.enqueue_many([(f"e{number}",) for number in range(200)])
        echo.enqueue("first")
        for _ in range(3):
            threading.Thread(target=enqueue, daemon=True).start()
        print("up", flush=True)
        time.sleep(1)
        """,
        *flags,
    )
    assert busy.stdout is not None
    assert busy.stdout.readline() == "up\n"
    worker.launch()

    began = time.monotonic()
    code, _, err = ended(busy)

    assert (code, err) == (0, "")
    assert time.monotonic() - began < 15
    until(fleet.is_drained, 60)


def test_what_a_program_enqueues_at_its_very_end_is_kept(fleet: EmbeddedFleet) -> None:
    late = script(
        fleet,
        """
        import atexit
        atexit.register(lambda: echo.enqueue("late"))
        echo.enqueue("early")
        """,
    )

    assert ended(late) == (0, "", "")
    assert not (fleet.data / "tq.sock").exists()
    assert fleet.queue().ready == 2


# ------------------------------------------------------------------------------------------- who is turned away


def test_a_daemon_is_told_who_embeds_the_broker_and_how_to_join(fleet: EmbeddedFleet) -> None:
    fleet.app.client.stats()

    refused = run("broker", "--data", str(fleet.data), "--listen", f"127.0.0.1:{free_port()}")

    assert refused.code == 3
    assert f"is open already, in process {os.getpid()}" in refused.err
    assert f"join it by file:{fleet.data}" in refused.err


def test_an_app_is_told_by_which_url_a_daemon_is_joined(fleet: EmbeddedFleet, tmp_path: Path) -> None:
    daemon = Fleet(tmp_path)
    try:
        daemon.broker()
        refused = fleet.admin("ping", "--timeout-ms", "500")
    finally:
        daemon.close()

    assert refused.returncode == 3
    assert f"tq-broker: join it by {daemon.url}" in refused.stderr


def test_without_the_extra_the_error_has_the_command_that_installs_it(fleet: EmbeddedFleet) -> None:
    bare = script(
        fleet,
        """
        sys.modules["rocksdict"] = None
        app.client._link._connect_timeout_s = 0.2
        try:
            app.client.stats()
        except Exception as error:
            print(type(error).__name__, error)
        """,
    )

    code, out, err = ended(bare)

    assert (code, err) == (0, "")
    assert out.startswith("BrokerUnavailable")
    assert "pip install 'tq[broker]'" in out
    assert "Is tq-broker running?" not in out


def test_without_the_extra_a_program_joins_one_that_has_it(fleet: EmbeddedFleet) -> None:
    fleet.broker()
    bare = script(fleet, "sys.modules['rocksdict'] = None\necho.enqueue('bare')\nprint('ok')")

    assert ended(bare) == (0, "ok\n", "")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("TQ_LEASE_MS", "soon", "TQ_LEASE_MS"),
        ("TQ_DURABILITY", "much", "durability"),
        ("TQ_LEASE_MS", "500", "lease_ms"),
    ],
)
def test_a_setting_that_cannot_be_is_said(
    fleet: EmbeddedFleet, variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError, match=says):
        fleet.app.client.stats()


def test_a_directory_of_others_is_refused_and_left_alone(fleet: EmbeddedFleet) -> None:
    fleet.data.mkdir()
    (fleet.data / "thesis.tex").touch()
    fleet.app.client._link._connect_timeout_s = 0.2

    with pytest.raises(BrokerUnavailable, match=r"not ours: it holds thesis\.tex"):
        fleet.app.client.stats()

    assert [entry.name for entry in fleet.data.iterdir()] == ["thesis.tex"]


# -------------------------------------------------------------------------------------------------------- admin


def test_admin_opens_what_nobody_has_and_says_so(fleet: EmbeddedFleet) -> None:
    fleet.bind(handlers.echo).enqueue("kept")
    fleet.app.close()

    table, document = fleet.admin("queues"), fleet.admin("queues", "--json")

    assert (table.returncode, document.returncode) == (0, 0)
    assert f"Nobody else has {fleet.data} open" in table.stderr
    assert document.stderr == ""
    assert not (fleet.data / "tq.sock").exists()


def test_admin_makes_no_data_where_there_is_none(fleet: EmbeddedFleet) -> None:
    done = fleet.admin("queues")

    assert done.returncode == 3
    assert f"{fleet.data} holds no data of tq" in done.stderr
    assert not fleet.data.exists()
