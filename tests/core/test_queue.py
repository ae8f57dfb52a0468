"""Queue names: what may be one."""

import pytest

from tq.core.limits import QUEUE_NAME_LENGTH_MAX
from tq.core.queue import DEFAULT_QUEUE, check_queue_name


@pytest.mark.parametrize(
    "name", [DEFAULT_QUEUE, "a", "0", "_", "mail.out-1", "eu:mail/bulk", "{tenant7}.mail", "q{group}", "x" * 128]
)
def test_a_queue_can_have_this_name(name: str) -> None:
    if not name.startswith("{"):
        check_queue_name(name)
    else:
        with pytest.raises(ValueError, match="starts with a letter"):
            check_queue_name(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a\n", "ä", "a*", "a\0", "x" * (QUEUE_NAME_LENGTH_MAX + 1)])
def test_a_queue_cannot_have_this_name(name: str) -> None:
    with pytest.raises(ValueError, match="a queue name has 1 to 128 letters"):
        check_queue_name(name)


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(ValueError, match="got") as caught:
        check_queue_name("x" * 100_000)

    assert len(str(caught.value)) < 400
