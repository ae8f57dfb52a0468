"""Whose a data directory is: the lock on it, and what its owner says of himself.

    DIR/owner    locked by the process that has the database open; its id, and how to join it

RocksDB has a lock of its own, but whoever runs into that has by then renamed the log of
messages of the database that is open.  This one is asked first, and can say who holds it.

Invariants: one owner at a time, in this process and among all.  The lock ends with the
process, however that ends, and does not pass to its forks.
"""

import fcntl
import os
from pathlib import Path

from tq.core.errors import StoreError, StoreLocked

OWNER_FILE = "owner"
_TEXT_BYTES_MAX = 4_096

# The kernel's lock keeps out other processes, and is lost when its own process closes the file by any descriptor:
# within a process this keeps a second owner from ever opening it.  A fork holds no lock.
_HELD: dict[str, "Ownership"] = {}
os.register_at_fork(after_in_child=_HELD.clear)


class Ownership:
    """The lock of *directory*, which exists; *holder* says who has it and how to join him, in half a sentence.

    Raises:
        StoreLocked: Another has it; the text says who, in his words.
        StoreError: The operating system refuses.
    """

    def __init__(self, directory: Path, holder: str) -> None:
        self._key = os.path.realpath(directory)
        if _HELD.setdefault(self._key, self) is not self:
            raise StoreLocked(
                f"data directory {directory} is open already, in this process: use the broker that has it"
            )
        try:
            self._descriptor = _locked(directory, holder)
        except BaseException:
            del _HELD[self._key]
            raise

    def release(self) -> None:
        """Let others have the directory."""
        os.close(self._descriptor)
        # After a fork it may be another's, or nobody's.
        if _HELD.get(self._key) is self:
            del _HELD[self._key]


def _locked(directory: Path, holder: str) -> int:
    """Return the descriptor that holds the lock: of POSIX, which a fork does not inherit."""
    try:
        descriptor = os.open(directory / OWNER_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"data directory {directory} cannot be used: {error}") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"in process {os.getpid()}, {holder}\n".encode()[:_TEXT_BYTES_MAX], 0)
    except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two it is.
        said = os.pread(descriptor, _TEXT_BYTES_MAX, 0).decode("utf-8", "replace").strip()
        os.close(descriptor)
        raise StoreLocked(
            f"data directory {directory} is open already, {said or 'in another process'}; "
            "or stop that one, or use another directory"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"data directory {directory} cannot be locked: {error}") from error
    return descriptor
