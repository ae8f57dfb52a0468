"""The one door to the broker that runs inside this process: ``App("memory:")``.

All else in a user's program reaches a broker by the wire only, and so does this: the
app's connections are socket pairs with the real protocol on them.

Invariant: the broker is imported and started at the first connection, not before.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tq.core.errors import UsageError

if TYPE_CHECKING:
    from tq.broker.embedded import EmbeddedBroker


class EmbeddedDialer:
    """A `tq.client.dialer.Dialer` of a broker that it starts itself, on memory, in a thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._broker: EmbeddedBroker | None = None
        self._is_closed = False

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> asyncio.Transport:
        """Connect the protocol that *factory* returns.

        Raises:
            UsageError: The broker was closed, or is in another process.
        """
        ours = self._connected()
        ours.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(factory, sock=ours)
        return transport

    def connect_blocking(self, timeout_s: float) -> socket.socket:
        """Return a connected stream socket.

        Raises:
            UsageError: The broker was closed, or is in another process.
        """
        return self._connected()

    def close(self) -> None:
        """Stop the broker, and with it all it holds.  Idempotent; does nothing in a forked process."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._is_closed = True
            broker, self._broker = self._broker, None
        if broker is not None:
            broker.close()

    def _connected(self) -> socket.socket:
        if self._pid != os.getpid():
            raise UsageError(
                "the broker of App('memory:') lives in the process that started it, and this is a fork "
                "of that one: start a tq-broker, and give both its URL"
            )
        with self._lock:
            if self._is_closed:
                raise UsageError("the broker of this App('memory:') was closed, with all it held")
            if self._broker is None:
                from tq.broker.embedded import open_memory  # noqa: PLC0415  # the door; see above

                self._broker = open_memory()
            return self._broker.connect()
