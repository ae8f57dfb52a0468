"""Whose a data directory is: the lock on it, and what its owner says of himself.

    DIR/owner    locked by the process that has the database open; its id, and how to join it

RocksDB has a lock of its own, but whoever runs into that has by then renamed the log of
messages of the database that is open, and its owner loses it by reading the file, as a
copy of the directory does (fcntl(2), on the locks of POSIX).  This one is asked first,
is not lost in that way, and can say who holds it.

Invariants: one owner at a time, in this process and among all.  The lock ends with the
process, however that ends, and forks do not keep it.
"""

import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

from tq.core.errors import StoreError, StoreLocked

OWNER_FILE = "owner"
_TEXT_BYTES_MAX = 4_096

# flock(2) holds for an open file: a fork has that open too, and closes its copy, or would keep the lock.
_HELD: set["Ownership"] = set()
# Held over each step that opens, notes or closes a lock, and over each fork: no fork comes between. By its thread
# again, since a handler of signals may fork.
_STEPS = threading.RLock()


def _close_copies() -> None:
    for ownership in _HELD:
        ownership.forget()
    _HELD.clear()
    _STEPS.release()


os.register_at_fork(before=_STEPS.acquire, after_in_parent=_STEPS.release, after_in_child=_close_copies)


class Ownership:
    """The lock of *directory*, which exists; *holder* says who has it and how to join him, in half a sentence.

    Raises:
        StoreLocked: Another has it, here or in another process; the text says who, in his words.
        StoreError: The operating system refuses.
    """

    def __init__(self, directory: Path, holder: str) -> None:
        with _STEPS:
            try:
                self._descriptor = os.open(directory / OWNER_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise StoreError(f"data directory {directory} cannot be used: {error}") from error
            _HELD.add(self)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"in process {os.getpid()}, {holder}\n".encode()[:_TEXT_BYTES_MAX], 0)
        except BlockingIOError:
            said = os.pread(self._descriptor, _TEXT_BYTES_MAX, 0).decode("utf-8", "replace").strip()
            self.release()
            raise StoreLocked(
                f"data directory {directory} is open already, {said or 'in another process'}; "
                "or stop that one, or use another directory"
            ) from None
        except OSError as error:
            self.release()
            raise StoreError(f"data directory {directory} cannot be locked: {error}") from error

    def release(self) -> None:
        """Let others have the directory. Idempotent; does nothing in a fork, which never had it."""
        with _STEPS:
            if self not in _HELD:
                return
            _HELD.discard(self)
            # A copy that nobody could close, such as one of a fork by C code, does not keep it either.
            with suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close this process's copy of the lock, and leave the lock to who has another."""
        os.close(self._descriptor)
        self._descriptor = -1
