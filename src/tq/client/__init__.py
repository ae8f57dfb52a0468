"""Clients of a broker: `AsyncClient`, and `SyncClient` made from it.

They speak of tasks as data; `tq.app` puts functions in front of them.
"""

from tq.client.async_client import AsyncClient
from tq.client.dialer import Dialer, TcpDialer
from tq.client.errors import EnqueueRefused, RefusedTask, ResultTimeout
from tq.client.sync_client import SyncClient
from tq.protocol.messages import DeadAction, QueueAction

__all__ = [
    "AsyncClient",
    "DeadAction",
    "Dialer",
    "EnqueueRefused",
    "QueueAction",
    "RefusedTask",
    "ResultTimeout",
    "SyncClient",
    "TcpDialer",
]
