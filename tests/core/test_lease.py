"""Tokens: epochs that never overlap."""

import pytest

from tq.core.lease import EPOCH_MAX, Token, epoch_of, first_token


def test_every_token_of_an_epoch_is_below_the_first_of_the_next() -> None:
    last = first_token(2) - 1

    assert first_token(1) < last
    assert epoch_of(Token(last)) == 1
    assert epoch_of(first_token(2)) == 2


def test_the_last_token_of_all_fits_into_eight_bytes() -> None:
    last = first_token(EPOCH_MAX) + (1 << 40) - 1

    assert last == (1 << 64) - 1


@pytest.mark.parametrize("epoch", [-1, 0, EPOCH_MAX + 1])
def test_there_is_no_such_epoch(epoch: int) -> None:
    with pytest.raises(ValueError, match="an epoch is 1 to"):
        first_token(epoch)
