"""The servers, each started fresh on a port of its own, its data in a temporary directory.

Invariant: all listen on this machine only.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.environments import Executable, server as executable
from bench.systems.loads import URL_VARIABLE
from tq.testing.programs import Program, ProgramError, broker_url, free_port, start_broker

_START_S_MAX = 10.0
_POLL_S = 0.01


class Server(NamedTuple):
    """A running server: its process, and what its clients and workers need in their environment to find it."""

    pid: int
    variables: dict[str, str]


def redis_server() -> Executable:
    """Return Redis's program; see `bench.environments.server`."""
    return executable("redis-server", "redis-server")


def beanstalkd_server() -> Executable:
    """Return beanstalkd's program; see `bench.environments.server`."""
    return executable("beanstalkd", "beanstalkd")


StartServer = Callable[[str, Path], AbstractContextManager[Server]]
"""Runs a server of a durability, with its data and log in a directory."""


@contextmanager
def tq_broker(durability: str, directory: Path) -> Iterator[Server]:
    """Run a tq-broker."""
    words = ("--data", str(directory / "data"), "--durability", durability, "--log-level", "warning")
    with start_broker(*words, log=directory / "server.log") as broker:
        yield Server(broker.pid, {"TQ_URL": broker_url(broker)})
        broker.stop()


@contextmanager
def floor(_durability: str, directory: Path) -> Iterator[Server]:
    """Run the floor, which has fsync and no other durability."""
    command = [sys.executable, "-m", "bench.systems.floor_broker", str(directory / "data")]
    with Program.start(command, log=directory / "server.log") as broker:
        address = broker.read_line().removeprefix("listening on ")
        yield Server(broker.pid, {URL_VARIABLE: f"floor://{address}"})


@contextmanager
def redis(durability: str, directory: Path) -> Iterator[Server]:
    """Run Redis with an append-only file, and no snapshots."""
    program, port = redis_server(), free_port()
    (directory / "data").mkdir()
    words = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory / "data"), "--save", "")
    keeps = ("--appendonly", "yes", "--appendfsync", durability)
    log = directory / "server.log"
    command = [str(program.path), *words, *keeps, "--logfile", str(log)]
    with Program.start(command, log=log, environment=program.environment()) as server:
        server.wait_for_log("Ready to accept connections")
        yield Server(server.pid, {URL_VARIABLE: f"redis://127.0.0.1:{port}/0"})


@contextmanager
def beanstalkd(durability: str, directory: Path) -> Iterator[Server]:
    """Run beanstalkd with a binlog; `always` and `everysec` mean what they mean to Redis."""
    program, port = beanstalkd_server(), free_port()
    (directory / "data").mkdir()
    sync_ms = {"always": "0", "everysec": "1000"}[durability]
    words = ("-l", "127.0.0.1", "-p", str(port), "-b", str(directory / "data"), "-f", sync_ms)
    command = [str(program.path), *words]
    with Program.start(command, log=directory / "server.log", environment=program.environment()) as server:
        _wait_for(server, port)
        yield Server(server.pid, {URL_VARIABLE: f"beanstalkd://127.0.0.1:{port}"})


def _wait_for(server: Program, port: int) -> None:
    deadline = time.monotonic() + _START_S_MAX
    while True:
        server.check()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise ProgramError(f"process {os.getpid()}: nobody listens on port {port} after {_START_S_MAX:g} s")
        time.sleep(_POLL_S)
