"""tq-worker: its help, and its refusals before it works; tests/acceptance runs the rest."""

import pytest

from tq.bin.worker import main


def test_help_teaches_the_flags_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    text = capsys.readouterr().out
    for part in ("--app -A", "--queues -Q", "--concurrency -c", "--pool -P", "--name -n", "--log-level -l", "--burst"):
        assert part in text
    for part in ("tq-worker -A shop.tasks:app -Q urgent:4,default", "the second leaves at once", "Exit codes: 0"):
        assert part in text


@pytest.mark.parametrize(
    "words, complaint",
    [
        ([], "-A or --app is missing"),
        (["-A", "mail", "-c", "0"], "--concurrency must be 1 to 10000 or auto; got '0'"),
        (["-A", "mail", "-Q", "a b"], "a queue name has"),
        (["-A", "mail", "--url", "127.0.0.1:7766"], "starts with tq://"),
        (["-A", "nowhere_to_be_found"], "there is no module 'nowhere_to_be_found'"),
        (["-A", "a/b.py"], "is not of the form module:name"),
    ],
)
def test_a_wrong_command_line_is_told_and_ends_with_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
