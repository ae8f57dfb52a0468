"""The data directory: what is in it, whose it is, and how much of the log is known to be on disk.

    DIR/format    one line: the layout's version, written once the database exists
    DIR/rocks/    the database
    DIR/synced    eight bytes: the log's sequence number at the last fsync that succeeded
    DIR/owner     who has it open; see `tq.store.ownership`
    DIR/tq.sock   where an embedded broker is joined; see `tq.client.local`

Invariants: a directory that is not ours, or of a later version, is refused before
anything in it is touched. Where `format` exists the database must: a lost one is an
error, never silently made anew. The number in `synced` is never ahead of the disk.
"""

import os
from pathlib import Path

from tq.core.errors import StoreCorrupt, StoreError, StoreTooNew

FORMAT_VERSION = 1
_MARK_BYTES = 8
_FORMAT_PREFIX = "tq data directory, format "
_OURS = frozenset({"format", "format.new", "rocks", "synced", "owner", "tq.sock", "tq.sock.new"})
# A new file system mounted as a data directory holds this one.
_HARMLESS = frozenset({"lost+found"})


class DataDirectory:
    """The paths of one data directory, and the rules above."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rocks = path / "rocks"
        self._format = path / "format"

    def prepare(self) -> bool:
        """Make the directory unless it is there, and return whether it holds a database.

        Raises:
            StoreTooNew: A later version of the product wrote it.
            StoreCorrupt: Its `format` is not one that any version writes.
            StoreError: It holds other files than ours, or the operating system refuses.
        """
        try:
            # The rows hold the arguments of tasks: nobody else's reading.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {entry.name for entry in os.scandir(self.path)}
            if "format" in names:
                self._check_format(self._format.read_bytes())
                return True
        except OSError as error:
            raise StoreError(f"data directory {self.path} cannot be used: {error}") from error
        if foreign := sorted(names - _HARMLESS - _OURS):
            raise StoreError(
                f"data directory {self.path} is not empty and not ours: it holds {', '.join(foreign[:5])}; "
                "name a new or an empty directory"
            )
        return False

    def claim(self) -> None:
        """Mark the directory as ours, durably. The database exists by now, so that it is never missed."""
        fresh = self.path / "format.new"
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{_FORMAT_PREFIX}{FORMAT_VERSION}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._format)
        for folder in (self.path, self.path.absolute().parent):
            _sync_folder(folder)

    def free_bytes(self) -> int:
        """Return how many bytes this user may still write to the directory's file system."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def _check_format(self, line: bytes) -> None:
        text = line.decode("ascii", "replace").strip()
        version = text.removeprefix(_FORMAT_PREFIX)
        if version == text or not version.isdecimal():
            raise StoreCorrupt(f"{self._format} says {text[:80]!r}, not '{_FORMAT_PREFIX}N': restore the file")
        if int(version) > FORMAT_VERSION:
            raise StoreTooNew(
                f"data directory {self.path} has format {version}, this version reads up to "
                f"{FORMAT_VERSION}: run the version that wrote it, or a later one"
            )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class SyncedMark:
    """The log's sequence number as of the last fsync, in eight bytes of a file that is itself never synced.

    After a kill the page cache has the last value; after a power failure the disk may have
    an older one. It is therefore a lower bound of what was acknowledged, and all but exact
    unless the power failed.

    Raises:
        OSError: The file cannot be made or read.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "synced"
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def read(self) -> int:
        """Return the last number; zero where there was none."""
        return int.from_bytes(os.pread(self._descriptor, _MARK_BYTES, 0), "little")

    def advance(self, sequence: int) -> None:
        """Move the mark to *sequence*, which the log on disk has reached."""
        try:
            os.pwrite(self._descriptor, sequence.to_bytes(_MARK_BYTES, "little"), 0)
        except OSError:
            # An older mark is a weaker guard, not a wrong one; the database fails for itself on this disk.
            pass

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
