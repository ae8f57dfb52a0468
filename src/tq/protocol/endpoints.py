"""Addresses of brokers, as they are written.

tq://host[:port][,host[:port]...]    a broker that listens
file:directory                       one that is embedded in a program which has the directory's data open
"""

import re
from typing import NamedTuple

from tq.core.errors import ConfigError

SCHEME = "tq://"
FILE_SCHEME = "file:"
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
        raise ConfigError(
            f"a broker's URL starts with {SCHEME}, as in tq://127.0.0.1:7766, or is {FILE_SCHEME} and a data "
            f"directory; got {url!r}"
        )
    rest = url.removeprefix(SCHEME).removesuffix("/")
    return list(dict.fromkeys(_parse_address(part.strip(), url) for part in rest.split(",")))


def parse_directory(url: str) -> str | None:
    """Return the directory of a ``file:`` URL as it is written, relative or not; None of any other URL.

    Raises:
        ConfigError: It names no directory of this machine.
    """
    if not url.startswith(FILE_SCHEME):
        return None
    path = url.removeprefix(FILE_SCHEME)
    if path.startswith("//"):
        # RFC 8089: file://host/path, of which the host may be empty.
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ConfigError(f"write file:DIRECTORY or file:///DIRECTORY for a broker on files; got {url!r}")
    if not path or "\0" in path:
        raise ConfigError(f"a broker on files needs a directory, as in file:./tq-data; got {url!r}")
    return path


def check_url(url: str) -> None:
    """Refuse what is the address of no broker that several processes can share.

    Raises:
        ConfigError: *url* is of no known form.
    """
    if parse_directory(url) is None:
        parse_endpoints(url)


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
