"""The settings of tq-admin: where the broker may be."""

import pytest

from tq.admin.config import AdminSettings
from tq.core.errors import ConfigError


def test_the_broker_may_have_several_addresses() -> None:
    assert AdminSettings(url="tq://a:1,b:2").url == "tq://a:1,b:2"


@pytest.mark.parametrize("url", ["", "127.0.0.1:7766", "http://a:1", "tq://", "tq://a:b"])
def test_what_is_no_address_of_a_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        AdminSettings(url=url)
