"""TCP: the listening socket of a broker.

Invariant: everything above bytes is in the service; this module binds and tells where.
"""

import asyncio

from tq.broker.config import Address
from tq.broker.service import BrokerService

_BACKLOG = 1_024


async def listen(service: BrokerService, address: Address) -> asyncio.Server:
    """Accept connections for *service* at *address*; port 0 takes a free one (see `bound`).

    Raises:
        OSError: The address is in use, or not one of this machine.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(service.connection, address.host, address.port, backlog=_BACKLOG)


def bound(server: asyncio.Server) -> Address:
    """Return the address at which *server* listens."""
    host, port, *_ = server.sockets[0].getsockname()
    return Address(host, port)
