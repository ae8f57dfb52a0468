"""Forks that handlers make: the code with which a copy ends; the rest is in tests/acceptance/test_handlers.py."""

import pytest

from tq.worker.forks import _code_after


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (SystemExit(), 0, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(-1), 255, ""),
        (SystemExit(1 << 40), 0, ""),
        (SystemExit("a word"), 1, "a word\n"),
        (ValueError("no"), 1, "ValueError: no\n"),
        (KeyboardInterrupt(), 1, "KeyboardInterrupt\n"),
    ],
)
def test_a_copy_ends_with_the_code_of_a_script(
    error: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _code_after(error) == code

    assert capsys.readouterr().err == said
