"""Connections must not use up the descriptors that the store needs to go on."""

import resource
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tq.client import SyncClient, TcpDialer
from tq.core.task import Task
from tq.testing.programs import tq_command

DESCRIPTORS = 100


def test_a_broker_whose_descriptors_are_all_connections_still_takes_tasks(tmp_path: Path) -> None:
    words = tq_command("tq-broker", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))  # noqa: E731
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=few) as broker,  # noqa: PLW1509
        ExitStack() as others,
    ):
        others.callback(broker.terminate)
        assert broker.stdout is not None
        address = broker.stdout.readline().split()[-1]
        host, port = address.split(":")
        with SyncClient(TcpDialer.of(f"tq://{address}")) as client:
            client.ping()
            for _ in range(DESCRIPTORS):
                others.enter_context(socket.create_connection((host, int(port)), timeout=1))

            # Past 64 MiB RocksDB wants a new log file, for which there must be a descriptor left.
            for _ in range(400):
                client.enqueue_many([Task.build("t").args(b"x" * 120_000).task() for _ in range(4)])

            client.ping()
        assert broker.poll() is None
    assert "fewer connections than configured" in (tmp_path / "log").read_text()
