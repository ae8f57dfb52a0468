"""The synchronous client is the one that the asynchronous one makes."""

import ast
from pathlib import Path

import pytest

from scripts.unasync import GENERATED, ROOT, SUBSTITUTIONS, converted, main


@pytest.mark.parametrize("source, target", GENERATED.items())
def test_the_generated_file_is_the_written_one(source: str, target: str) -> None:
    text = converted((ROOT / source).read_text(encoding="utf-8"), set())

    assert text == (ROOT / target).read_text(encoding="utf-8")


@pytest.mark.parametrize("target", GENERATED.values())
def test_nothing_asynchronous_is_left(target: str) -> None:
    nodes = list(ast.walk(ast.parse((ROOT / target).read_text(encoding="utf-8"))))

    assert not [node for node in nodes if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor)]
    assert not [node.id for node in nodes if isinstance(node, ast.Name) and "Async" in node.id]


def test_every_substitution_is_of_use() -> None:
    used: set[str] = set()

    for source in GENERATED:
        converted((ROOT / source).read_text(encoding="utf-8"), used)

    assert used == {pattern for pattern, _ in SUBSTITUTIONS}


def test_checking_tells_a_stale_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [*GENERATED, *GENERATED.values()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("scripts.unasync.ROOT", tmp_path)
    stale = tmp_path / "src/tq/client/sync_client.py"

    fresh = main(["--check"])
    stale.write_text(stale.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    edited = main(["--check"])
    written = main([])

    assert (fresh, edited, written) == (0, 1, 0)
    assert "# edited" not in stale.read_text(encoding="utf-8")
    assert "sync_client.py: is not what scripts/unasync.py would write" in capsys.readouterr().out
