"""Every message of the wire, as data, by what it is about; the table of them all is in `table`.

Bodies are MessagePack arrays in the order of the fields, and so are the rows in them; fields
may be added at the end with a default, never moved.
"""

from tq.protocol.messages.admin import (
    Affected as Affected,
    ControlDead as ControlDead,
    ControlQueue as ControlQueue,
    DeadAction as DeadAction,
    GetStats as GetStats,
    ListQueues as ListQueues,
    ListWorkers as ListWorkers,
    QueueAction as QueueAction,
    Queues as Queues,
    Stats as Stats,
    Workers as Workers,
)
from tq.protocol.messages.handshake import (
    MAGIC as MAGIC,
    VERSIONS as VERSIONS,
    Error as Error,
    GoingAway as GoingAway,
    Held as Held,
    Hello as Hello,
    Limits as Limits,
    Ok as Ok,
    Ping as Ping,
    Pong as Pong,
    Role as Role,
    Versions as Versions,
    Welcome as Welcome,
)
from tq.protocol.messages.table import MESSAGES as MESSAGES, TYPE_OF as TYPE_OF, Row as Row, Type as Type
from tq.protocol.messages.tasks import (
    Cancel as Cancel,
    Cancelled as Cancelled,
    Enqueue as Enqueue,
    Enqueued as Enqueued,
    Get as Get,
    ListTasks as ListTasks,
    RefusedCancel as RefusedCancel,
    RefusedEnqueue as RefusedEnqueue,
    Results as Results,
    Tasks as Tasks,
    Unwait as Unwait,
    Wait as Wait,
    Waited as Waited,
)
from tq.protocol.messages.work import (
    Deliver as Deliver,
    Goodbye as Goodbye,
    Heartbeat as Heartbeat,
    QueueWeight as QueueWeight,
    Release as Release,
    Revoke as Revoke,
    Settle as Settle,
    Settled as Settled,
    Started as Started,
    Subscribe as Subscribe,
    Window as Window,
)
