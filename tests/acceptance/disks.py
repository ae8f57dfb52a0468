"""Small disks, and how to fill them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path | None]:
    """Mount a file system of so many MiB; None where this user may not."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(path: Path, bytes_max: int | None = None) -> None:
    """Write zeros into *path* until the disk is full, or until *bytes_max*."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while bytes_max is None or file.tell() < bytes_max:
            file.write(bytes(65_536))
