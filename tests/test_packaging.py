"""The wheel, as a user gets it: what is in it, and that it works where nothing else is installed."""

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Scripts that the base install does not carry, and the extra that brings each.
EXTRA_OF = {"tq-broker": "broker"}

WAIT_SECONDS_MAX = 300


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program away from this checkout and return what it printed; a failure shows all it said."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TQ_"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a virtual environment that holds pip and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    return folder / "bin"


def test_the_wheel_holds_the_package_its_types_and_its_licence_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    about = f"tq-{wheel.name.split('-')[1]}.dist-info"
    assert {name for name in names if not name.startswith(about)} >= {*sources, "tq/py.typed"}
    assert f"{about}/licenses/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {"tq", about}
    assert not [name for name in names if "/tests/" in name or "/test_" in name]


def test_the_wheel_works_in_a_clean_environment(wheel: Path, clean_bin: Path, tmp_path: Path) -> None:
    python = clean_bin / "python"

    run(python, "-m", "pip", "install", "--disable-pip-version-check", wheel, cwd=tmp_path)

    assert wheel.name.startswith(f"tq-{run(python, '-c', 'import tq; print(tq.__version__)', cwd=tmp_path).strip()}-")
    for script in PROJECT["scripts"]:
        if script not in EXTRA_OF:
            assert script in run(clean_bin / script, "--help", cwd=tmp_path)

    for script, extra in EXTRA_OF.items():
        run(python, "-m", "pip", "install", "--disable-pip-version-check", f"{wheel}[{extra}]", cwd=tmp_path)
        assert script in run(clean_bin / script, "--help", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
