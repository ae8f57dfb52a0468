"""TCP: the listening socket of a broker.

Invariant: everything above bytes is in the service; this module binds and tells where.
"""

import asyncio
import os
import socket

from tq.broker.config import Address
from tq.broker.service import BrokerService

_BACKLOG = 1_024
# A peer that has answered nothing for a minute is asked; after a minute more it is given up.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


async def listen(service: BrokerService, address: Address) -> asyncio.Server:
    """Accept connections for *service* at *address*; port 0 takes a free one (see `bound`).

    Raises:
        OSError: The address is in use, or not one of this machine.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(service.connection, address.host, address.port, backlog=_BACKLOG)
    for listening in server.sockets:
        _keep_alive(listening.fileno())
    return server


def _keep_alive(descriptor: int) -> None:
    """Let connections end whose other side is gone without a word; those accepted have what their listener has."""
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            # Not every system has them.
            if hasattr(socket, option):
                listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def bound(server: asyncio.Server) -> Address:
    """Return the address at which *server* listens."""
    host, port, *_ = server.sockets[0].getsockname()
    return Address(host, port)
