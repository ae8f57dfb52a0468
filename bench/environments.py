"""What the peers need, made by the bench itself under .bench/: virtual environments, and Debian's packages unpacked.

Nothing is installed on the machine, and nobody needs to be root: a server that is on the
path is taken from there, else its package is fetched with those it depends on and unpacked
into a folder of its own, where no service is started of it.

Invariant: what is there is what its name says; a half-made environment is made again.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".bench"
_DONE = "made-of"
_WAIT_S_MAX = 600.0


class NotToBeHadError(Exception):
    """A peer's library or server is not here and cannot be fetched; the text says why and what to do."""


class Executable(NamedTuple):
    """A program, and where it finds its shared libraries if not where all do."""

    path: Path
    libraries: Path | None

    def environment(self) -> dict[str, str]:
        """Return the environment to start it in."""
        return dict(os.environ) | ({"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {})


def python_path(*, inherits: bool = True) -> str:
    """Return where a program imports from besides: the repository's root and, if it *inherits* that, our own path."""
    own = os.environ.get("PYTHONPATH") if inherits else None
    return os.pathsep.join([str(ROOT), *([own] if own else [])])


def ours() -> dict[str, str]:
    """Return this process's environment for a program that imports from the repository."""
    return {**os.environ, "PYTHONPATH": python_path()}


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of an environment that has *requirements*, made where it is missing or of other ones.

    Raises:
        NotToBeHadError: pip could not install them.
    """
    folder = HOME / "environments" / name
    python, made_of = folder / "bin" / "python", folder / _DONE
    wanted = "\n".join([sys.version, *requirements])
    if made_of.exists() and made_of.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {', '.join(requirements)} for {name}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    done = _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    if done.returncode != 0:
        raise NotToBeHadError(f"{name}: pip could not install {', '.join(requirements)}:\n{done.stderr.strip()}")
    made_of.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path, libraries: Sequence[str]) -> dict[str, str]:
    """Return the versions of *libraries* in the environment of *python*."""
    script = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    done = subprocess.run([str(python), "-c", script, *libraries], capture_output=True, text=True, check=True)
    return dict(zip(libraries, done.stdout.split(), strict=True))


def server_version(executable: Executable) -> str:
    """Return a server's name and version."""
    name = executable.path.name
    flag = "--version" if name.startswith("redis") else "-v"
    done = subprocess.run(
        [str(executable.path), flag], env=executable.environment(), capture_output=True, text=True, check=True
    )
    number = re.search(r"\d+(\.\d+)+", done.stdout)
    return f"{name} {number[0] if number else 'of an unknown version'}"


def server(program: str, package: str) -> Executable:
    """Return a server's program: the one on the path, else the one of Debian's *package*.

    Raises:
        NotToBeHadError: It is not there, and apt could not fetch it.
    """
    if found := shutil.which(program):
        return Executable(Path(found), None)
    folder = HOME / "debian" / package
    if not (folder / _DONE).exists():
        print(f"fetching Debian's {package}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _unpack(package, folder)
        (folder / _DONE).touch()
    libraries = next((path.parent for path in folder.glob("usr/lib/*-linux-gnu*/*.so*")), None)
    return Executable(folder / "usr" / "bin" / program, libraries)


def _unpack(package: str, folder: Path) -> None:
    """Unpack *package* and what it needs of what is not installed."""
    # What would be installed; nothing is.
    simulate = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb")):
        raise _no_package(package, "this machine has no apt-get and dpkg-deb")
    would = _run(simulate)
    if would.returncode != 0 and os.geteuid() == 0:
        # A fresh image has no lists of packages yet.
        _run(["apt-get", "update"])
        would = _run(simulate)
    if would.returncode != 0:
        raise _no_package(package, would.stderr.strip())
    needed = [line.split()[1] for line in would.stdout.splitlines() if line.startswith("Inst ")]
    fetched = _run(["apt-get", "download", *needed], folder)
    if fetched.returncode != 0:
        raise _no_package(package, fetched.stderr.strip())
    for archive in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(archive), str(folder)]).check_returncode()


def _no_package(package: str, why: str) -> NotToBeHadError:
    return NotToBeHadError(
        f"{package}: neither on the path nor to be fetched with apt: {why}\n"
        f"Install it (apt-get update && apt-get install {package}), or measure without: --only tq,floor"
    )


def _run(command: list[str], directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_WAIT_S_MAX,
        check=False,
    )
