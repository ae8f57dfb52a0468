"""What tq-admin can be told: one field a setting, with its unit, its bounds and its help."""

from typing import Annotated

import msgspec
from msgspec import Meta

from tq.core.times import MINUTE, SECOND
from tq.protocol.endpoints import check_url


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every command of tq-admin can be told.

    Raises:
        ConfigError: ``url`` is not the address of a broker.
    """

    url: Annotated[str, Meta(description="Where the broker is, tq://HOST:PORT[,HOST:PORT] or file:DIRECTORY.")] = (
        "tq://127.0.0.1:7766"
    )
    json: Annotated[bool, Meta(description="Print one JSON document instead of a table; an error is one too.")] = False
    timeout_ms: Annotated[int, Meta(ge=100, le=10 * MINUTE, description="How long to wait for the broker.")] = (
        5 * SECOND
    )

    def __post_init__(self) -> None:
        """Refuse an address that cannot be meant."""
        check_url(self.url)
