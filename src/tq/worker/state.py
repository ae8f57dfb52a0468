"""A worker's sign of life: a small file, for whoever asks from outside whether it works.

The worker touches the file while its event loop turns, and writes it anew when its
connection opens or ends.  So `tq-worker --check` asks no broker: one that restarts would
have every healthy worker restarted with it.

    {"name": "mail-1", "pid": 4711, "connected": true, "was_connected": true, "since_ms": 1790000000000}

Invariant: a reader finds a whole text or none; how fresh it is, is the file's time of
modification.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tq.core.errors import ConfigError

TOUCH_S = 1.0
"""How often a loop that turns touches the file."""

STILL_S = 10.0
"""A loop that has not turned for so long stands still; it is the time after which the broker's lease may end."""

APART_S = 60.0
"""How long a worker may be without its broker: longer than the restart of one takes."""


class State(msgspec.Struct, frozen=True):
    """What the file says: ``since_ms`` is when ``connected`` changed last, Unix time."""

    name: str
    pid: int
    connected: bool
    was_connected: bool
    since_ms: int


class StateFile:
    """The file at *path*, as the worker *name* keeps it; *wall* is the time of day in seconds.

    Raises:
        ConfigError: It cannot be written.
    """

    def __init__(self, path: Path, name: str, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        self._touched_at = 0.0
        self._state = State(name, os.getpid(), False, False, self._now_ms())
        try:
            self._write()
        except OSError as error:
            raise ConfigError(f"the state file {path} cannot be written: {error.strerror or error}") from error

    def note(self, now: float, *, connected: bool) -> None:
        """Say, at *now* of any clock in seconds, that the loop turns, and whether there is a broker."""
        state = self._state
        if connected != state.connected:
            was_connected = connected or state.was_connected
            self._state = State(state.name, state.pid, connected, was_connected, self._now_ms())
        elif now - self._touched_at < TOUCH_S:
            return
        self._touched_at = now
        try:
            if self._state is state:
                os.utime(self._path)
            else:
                self._write()
        except FileNotFoundError:
            # What cleans up temporary files has been here.
            self._try_to_write()
        except OSError:
            # The disk is full, say: the file grows old, and whoever looks is told so.
            pass

    def remove(self) -> None:
        """Take the file away: the worker has left.  Another worker's, under the same name, stays."""
        try:
            if read_state(self._path).pid == self._state.pid:
                self._path.unlink(missing_ok=True)
        except (OSError, ValueError):
            pass

    def _now_ms(self) -> int:
        return int(self._wall() * 1_000)

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError:
            pass

    def _write(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{self._state.pid}")
        # Never through a link that someone else has laid there.
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            file.write(msgspec.json.encode(self._state))
        part.replace(self._path)


def read_state(path: Path) -> State:
    """Return what the file at *path* says.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It is no state file.
    """
    return msgspec.json.decode(path.read_bytes(), type=State)


def ailment(path: Path, wall: float) -> str | None:
    """Return why the worker that keeps the file at *path* does not work, at the time of day *wall*; None if it does.

    It does if its loop has turned within `STILL_S`, and it is connected, or was within `APART_S`.
    """
    try:
        state, touched_at = read_state(path), path.stat().st_mtime
    except FileNotFoundError:
        return f"there is no {path}: no worker of this name runs here, or it has another --state-file"
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"
    who = f"worker {state.name} (process {state.pid})"
    still_s = wall - touched_at
    if still_s > STILL_S:
        return f"{who}: its event loop has not turned for {still_s:.0f} s, or it is gone"
    if state.connected:
        return None
    apart_s = wall - state.since_ms / 1_000
    if not state.was_connected:
        return f"{who}: it has not reached its broker yet, for {apart_s:.0f} s"
    if apart_s > APART_S:
        return f"{who}: it has been without its broker for {apart_s:.0f} s"
    return None


def default_path(name: str, environment: dict[str, str], temporary: Path) -> Path:
    """Return where the worker *name* keeps its file if it is not told: in the user's runtime directory.

    That is ``$XDG_RUNTIME_DIR/tq``, else a directory of this user's own in *temporary*.
    """
    runtime = environment.get("XDG_RUNTIME_DIR")
    own = f"tq-{os.getuid()}" if hasattr(os, "getuid") else "tq"
    directory = Path(runtime) / "tq" if runtime else temporary / own
    # A name is any text, a file's is not.
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    return directory / f"worker-{safe[:200]}.json"
