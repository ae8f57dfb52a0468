"""The unix socket at which an embedded broker is joined: where it is, and the way there.

    DIR/tq.sock    in the data directory, for its user alone

The kernel takes paths of sockets up to 107 bytes.  A longer one is named by a descriptor
of its directory, through Linux's ``/proc/self/fd``.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_FILE = "tq.sock"
# Source: unix(7), sun_path is 108 bytes with its closing NUL.
PATH_BYTES_MAX = 107


@contextmanager
def socket_path(directory: Path, name: str = SOCKET_FILE) -> Iterator[str]:
    """Yield a path of *name* in *directory* that the kernel takes, valid until the block ends.

    Raises:
        OSError: The directory cannot be opened, or has a path that only Linux could take.
    """
    path = str(directory / name)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def connect_local(directory: Path) -> socket.socket | None:
    """Return a blocking socket that is connected to the broker of *directory*; None where nobody listens.

    It never waits: a broker with too many callers waiting counts as none.
    """
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.setblocking(False)
        with socket_path(directory) as path:
            ours.connect(path)
    except OSError:
        # Nothing there, or left by one that was killed, or not for us: whoever needs a broker tries to be it.
        ours.close()
        return None
    except BaseException:
        ours.close()
        raise
    ours.setblocking(True)
    return ours
