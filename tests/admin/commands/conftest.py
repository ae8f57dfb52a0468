"""Each test gets a broker of its own."""

from collections.abc import Iterator

import pytest

from tests.admin.commands.shop import Shop


@pytest.fixture
def shop() -> Iterator[Shop]:
    opened = Shop()
    yield opened
    opened.close()
