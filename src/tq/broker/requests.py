"""Requests: what each message of the wire asks of the engine, and what answers it.

One table, one short function a message.  A function returns the reply, or None for a
notice, or what is left for the next batch; refusals are raised as `BrokerError`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from tq.broker.pressure import Pressure
from tq.broker.sessions import Session
from tq.core.errors import BrokerStoreFull, LocalProtocolError, SessionUnknown
from tq.core.lease import DeliveryRef, refs_to
from tq.engine import commands
from tq.engine.changes import Changes
from tq.engine.engine import Engine
from tq.protocol import messages
from tq.protocol.messages import DeadAction, QueueAction, Role, Type


class Answering(Protocol):
    """The service, as a request sees it."""

    engine: Engine
    limits: messages.Limits
    server: str
    pressure: Pressure

    def stats(self, now: int, changes: Changes) -> messages.Stats:
        """Return the figures of the broker as a whole."""
        ...

    def appoint(self, session: Session, worker: bytes) -> None:
        """*session* speaks for *worker* from now on, and no older connection does."""
        ...

    def retire(self, session: Session) -> None:
        """*session* speaks for no worker any more."""
        ...

    def ask_store(self) -> None:
        """Let the answer wait until the store has answered."""
        ...


class Unfinished(msgspec.Struct, frozen=True, gc=False):
    """A request that does not fit into one batch: ``rest`` is to be answered, as the message was, in a later one."""

    rest: msgspec.Struct


class SettleRest(msgspec.Struct, frozen=True, gc=False):
    """What is left of a `Settle`, and the outcomes that were not the worker's so far."""

    command: commands.Settle
    lost: list[tuple[int, int]]


Answer = Callable[[Answering, Session, Any, int, Changes], msgspec.Struct | None]


def _hello(
    host: Answering, session: Session, message: messages.Hello, now: int, changes: Changes
) -> messages.Welcome | Unfinished:
    lost: list[tuple[int, int]] = []
    resumed = False
    if message.role is not Role.CLIENT:
        if message.session is None or message.secret is None:
            raise LocalProtocolError("the connection lets no worker through without session and secret")
        if message.role is Role.KEEPER:
            host.engine.check_secret(message.session, message.secret)
            session.worker = message.session
        elif message.worker is not None:
            held = [(held.token, held.indexes, held.started) for held in message.held]
            register = commands.Register(message.session, message.secret, message.worker, held)
            registered = host.engine.apply(register, now, changes)
            if registered.rest:
                return Unfinished(message)
            resumed, lost = registered.resumed, registered.lost
            host.appoint(session, message.session)
    return messages.Welcome(session.conn.version, host.server, now, host.limits, resumed, refs_to(lost))


def _enqueue(
    host: Answering, session: Session, message: messages.Enqueue, now: int, changes: Changes
) -> messages.Enqueued:
    if host.pressure.full is not None:
        raise BrokerStoreFull(host.pressure.full)
    command = commands.Enqueue(message.frame_id, message.specs, message.tasks)
    return messages.Enqueued(
        [messages.RefusedEnqueue(*refused) for refused in host.engine.apply(command, now, changes)]
    )


def _settle(
    host: Answering, session: Session, message: messages.Settle | SettleRest, now: int, changes: Changes
) -> messages.Settled | Unfinished:
    if isinstance(message, SettleRest):
        command, lost = message.command, message.lost
    else:
        command, lost = commands.Settle(_worker(session), message.done, message.failed), []
    settled = host.engine.apply(command, now, changes)
    lost = lost + settled.lost if lost else settled.lost
    return messages.Settled(refs_to(lost)) if settled.rest is None else Unfinished(SettleRest(settled.rest, lost))


def _subscribe(
    host: Answering, session: Session, message: messages.Subscribe, now: int, changes: Changes
) -> messages.Ok:
    queues = [(queue.name, queue.weight) for queue in message.queues]
    host.engine.apply(commands.Subscribe(_worker(session), queues, message.weighted), now, changes)
    return messages.Ok()


def _window(host: Answering, session: Session, message: messages.Window, now: int, changes: Changes) -> None:
    host.engine.apply(commands.SetWindow(_worker(session), message.tasks, message.payload_bytes), now, changes)


def _started(
    host: Answering, session: Session, message: messages.Started, now: int, changes: Changes
) -> Unfinished | None:
    rest = host.engine.apply(commands.MarkStarted(_worker(session), _places(message.tasks)), now, changes)
    return Unfinished(messages.Started(refs_to(rest))) if rest else None


def _release(
    host: Answering, session: Session, message: messages.Release, now: int, changes: Changes
) -> Unfinished | None:
    rest = host.engine.apply(commands.Release(_worker(session), _places(message.tasks)), now, changes)
    return Unfinished(messages.Release(refs_to(rest))) if rest else None


def _heartbeat(
    host: Answering, session: Session, message: messages.Heartbeat, now: int, changes: Changes
) -> messages.Ok:
    beat = commands.Beat(_worker(session), message.progress, message.blocked_by, message.stuck)
    host.engine.apply(beat, now, changes)
    return messages.Ok()


def _goodbye(
    host: Answering, session: Session, message: messages.Goodbye, now: int, changes: Changes
) -> messages.Ok | Unfinished:
    if not host.engine.apply(commands.Leave(_worker(session)), now, changes):
        return Unfinished(message)
    host.retire(session)
    return messages.Ok()


def _ping(host: Answering, session: Session, message: messages.Ping, now: int, changes: Changes) -> messages.Pong:
    host.ask_store()
    return messages.Pong(host.server, now)


def _get(host: Answering, session: Session, message: messages.Get, now: int, changes: Changes) -> messages.Tasks:
    return messages.Tasks(host.engine.apply(commands.Get(message.ids), now, changes))


def _wait(host: Answering, session: Session, message: messages.Wait, now: int, changes: Changes) -> messages.Waited:
    ended, unknown = host.engine.apply(commands.Wait(session.number, message.ids), now, changes)
    return messages.Waited(ended, unknown)


def _unwait(host: Answering, session: Session, message: messages.Unwait, now: int, changes: Changes) -> None:
    host.engine.apply(commands.Unwait(session.number, message.ids), now, changes)


def _cancel(
    host: Answering, session: Session, message: messages.Cancel, now: int, changes: Changes
) -> messages.Cancelled:
    refused = host.engine.apply(commands.Cancel(message.ids), now, changes)
    return messages.Cancelled([messages.RefusedCancel(*each) for each in refused])


def _list_tasks(
    host: Answering, session: Session, message: messages.ListTasks, now: int, changes: Changes
) -> messages.Tasks:
    command = commands.ListTasks(message.state, message.queue, message.limit, message.cursor)
    tasks, cursor = host.engine.apply(command, now, changes)
    return messages.Tasks(list(tasks), cursor)


def _list_queues(
    host: Answering, session: Session, message: messages.ListQueues, now: int, changes: Changes
) -> messages.Queues:
    command = commands.ListQueues(message.name, message.limit, message.cursor)
    return messages.Queues(*host.engine.apply(command, now, changes))


def _control_queue(
    host: Answering, session: Session, message: messages.ControlQueue, now: int, changes: Changes
) -> messages.Affected:
    match message.action:
        case QueueAction.PAUSE:
            affected = host.engine.apply(commands.PauseQueue(message.name, paused=True), now, changes)
        case QueueAction.RESUME:
            affected = host.engine.apply(commands.PauseQueue(message.name, paused=False), now, changes)
        case QueueAction.PURGE:
            affected = host.engine.apply(commands.PurgeQueue(message.name), now, changes)
    return messages.Affected(affected)


def _control_dead(
    host: Answering, session: Session, message: messages.ControlDead, now: int, changes: Changes
) -> messages.Affected:
    match message.action:
        case DeadAction.REDRIVE:
            affected = host.engine.apply(commands.RedriveDead(message.queue, message.ids), now, changes)
        case DeadAction.PURGE:
            affected = host.engine.apply(commands.ForgetDead(message.queue, message.ids), now, changes)
    return messages.Affected(affected)


def _list_workers(
    host: Answering, session: Session, message: messages.ListWorkers, now: int, changes: Changes
) -> messages.Workers:
    command = commands.ListWorkers(message.limit, message.cursor)
    return messages.Workers(*host.engine.apply(command, now, changes))


def _stats(host: Answering, session: Session, message: messages.GetStats, now: int, changes: Changes) -> messages.Stats:
    return host.stats(now, changes)


def _places(refs: list[DeliveryRef]) -> list[tuple[int, int]]:
    return [(ref.token, ref.index) for ref in refs]


def _worker(session: Session) -> bytes:
    if session.worker is None:
        raise SessionUnknown("this connection speaks for no worker session")
    return session.worker


ANSWERS: dict[Type, Answer] = {
    Type.HELLO: _hello,
    Type.PING: _ping,
    Type.ENQUEUE: _enqueue,
    Type.GET: _get,
    Type.WAIT: _wait,
    Type.UNWAIT: _unwait,
    Type.CANCEL: _cancel,
    Type.LIST_TASKS: _list_tasks,
    Type.SUBSCRIBE: _subscribe,
    Type.WINDOW: _window,
    Type.SETTLE: _settle,
    Type.STARTED: _started,
    Type.RELEASE: _release,
    Type.HEARTBEAT: _heartbeat,
    Type.GOODBYE: _goodbye,
    Type.LIST_QUEUES: _list_queues,
    Type.CONTROL_QUEUE: _control_queue,
    Type.CONTROL_DEAD: _control_dead,
    Type.LIST_WORKERS: _list_workers,
    Type.GET_STATS: _stats,
}
