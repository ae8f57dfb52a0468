"""Addresses of brokers, as they are written: ``tq://host[:port][,host[:port]...]``."""

import re
from typing import NamedTuple

from tq.core.errors import ConfigError

SCHEME = "tq://"
PORT_DEFAULT = 7766
_PORT_MAX = 65_535
# An address of IPv6 stands in brackets, so that its colons are not taken for the port's.
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s\[\]:/@?#,]+))(?::(?P<port>[^:]*))?\Z")


class Endpoint(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is written in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_endpoints(url: str) -> list[Endpoint]:
    """Return the addresses in *url*, in their order, without repetitions.

    Raises:
        ConfigError: *url* is not of this form; the message says what is wrong with it.
    """
    if not url.startswith(SCHEME):
        raise ConfigError(f"a broker's URL starts with {SCHEME}, as in tq://127.0.0.1:7766; got {url!r}")
    rest = url.removeprefix(SCHEME).removesuffix("/")
    return list(dict.fromkeys(_parse_address(part.strip(), url) for part in rest.split(",")))


def _parse_address(part: str, url: str) -> Endpoint:
    if not part:
        raise ConfigError(f"a host is missing in the broker's URL {url!r}")
    match = _ADDRESS.match(part)
    if match is None:
        hint = "; write an IPv6 address in brackets, as in tq://[::1]:7766" if part.count(":") > 1 else ""
        raise ConfigError(f"{part!r} in the broker's URL {url!r} is not host or host:port{hint}")
    port = match["port"]
    if port is None:
        return Endpoint(match["six"] or match["host"], PORT_DEFAULT)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= _PORT_MAX):
        raise ConfigError(f"a port is 1 to {_PORT_MAX}; got {port!r} in the broker's URL {url!r}")
    return Endpoint(match["six"] or match["host"], int(port))
