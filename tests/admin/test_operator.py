"""The operator: asked at a terminal, never elsewhere."""

import io

import pytest

from tq.admin.operator import ask
from tq.core.errors import ConfigError


class Terminal(io.StringIO):
    """Standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "typed, meant", [("y\n", True), ("YES\n", True), (" yes \n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_yes_is_yes(
    typed: str, meant: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))

    assert ask("Drop it?") is meant
    assert capsys.readouterr() == ("", "Drop it? [y/N] ")


def test_where_nobody_can_answer_the_question_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))

    with pytest.raises(ConfigError, match=r"Drop it\? .* add --yes"):
        ask("Drop it?")
