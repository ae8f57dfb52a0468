"""The way to a unix socket in a directory, however long its path is."""

import os
import socket
from pathlib import Path

import pytest

from tq.client.local import PATH_BYTES_MAX, SOCKET_FILE, connect_local, socket_path


def listening(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    with socket_path(directory) as path:
        listener.bind(path)
    listener.listen(1)
    return listener


@pytest.mark.parametrize("depth", [1, 4])
def test_a_path_of_any_length_is_bound_and_connected(depth: int, tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["d" * 100] * depth)
    directory.mkdir(parents=True)
    assert (len(os.fsencode(directory / SOCKET_FILE)) > PATH_BYTES_MAX) or depth == 1

    with listening(directory) as listener:
        ours = connect_local(directory)
        assert ours is not None
        theirs, _ = listener.accept()
        with ours, theirs:
            theirs.sendall(b"hello")
            assert ours.recv(10) == b"hello"

    assert (directory / SOCKET_FILE).is_socket()


def test_a_path_that_fits_is_used_as_it_is(tmp_path: Path) -> None:
    short = Path("/" + "d" * (PATH_BYTES_MAX - len(SOCKET_FILE) - 2))

    with socket_path(short) as path:
        assert path == f"{short}/{SOCKET_FILE}"


def test_nobody_is_there_without_a_socket_or_behind_a_stale_one(tmp_path: Path) -> None:
    assert connect_local(tmp_path / "missing") is None
    assert connect_local(tmp_path) is None

    listening(tmp_path).close()

    assert (tmp_path / SOCKET_FILE).exists()
    assert connect_local(tmp_path) is None


def test_a_broker_with_a_full_queue_of_callers_is_not_waited_for(tmp_path: Path) -> None:
    with listening(tmp_path):
        callers = [connect_local(tmp_path) for _ in range(5)]

    assert callers[-1] is None
    for caller in callers:
        if caller is not None:
            caller.close()
