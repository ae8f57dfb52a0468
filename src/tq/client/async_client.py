"""The client for programs that run an event loop: tasks as data, to a broker and back.

`tq.client.sync_client` is generated from this module by scripts/unasync.py: what differs
between loops and threads is in the links and the enqueuers, never here.

Invariant: an `Enqueue` is sent again after a lost connection with the frame id it had, so
that it takes effect once, however often it is sent.
"""

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import NamedTuple, Self, TypeVar

import msgspec

from tq.client.arguments import check_readable, checked_ids, deadline_after
from tq.client.async_connection import AsyncCall
from tq.client.async_enqueuer import AsyncEnqueuer
from tq.client.async_link import AsyncLink
from tq.client.batches import Batch, EnqueueOutcome, FrameCutter
from tq.client.dialer import Dialer
from tq.client.errors import ResultTimeout
from tq.client.ids import ClientIds
from tq.core.errors import (
    BatchTooLarge,
    BrokerError,
    ConnectionLost,
    Overloaded,
    TaskNotFound,
    UsageError,
    broker_error,
)
from tq.core.ids import TaskId, format_id
from tq.core.lifecycle import TaskState
from tq.core.limits import PAGE_MAX, REQUEST_IDS_MAX
from tq.core.outcome import TaskResult
from tq.core.queue import QueueView
from tq.core.task import Task, TaskView
from tq.core.version import __version__
from tq.core.worker import WorkerView
from tq.protocol.messages import (
    MAGIC,
    VERSIONS,
    Affected,
    Cancel,
    Cancelled,
    ControlDead,
    ControlQueue,
    DeadAction,
    Enqueue,
    Enqueued,
    Get,
    GetStats,
    Hello,
    ListQueues,
    ListTasks,
    ListWorkers,
    Ping,
    Pong,
    QueueAction,
    Queues,
    Role,
    Stats,
    Tasks,
    Welcome,
    Workers,
)

FRAMES_IN_FLIGHT_MAX = 8
"""How many frames `enqueue_many` sends ahead of their answers: the broker commits one while others travel."""

R = TypeVar("R", bound=msgspec.Struct)
Page = TypeVar("Page", Queues, Workers)


class _Flight(NamedTuple):
    """A frame on its way."""

    batch: Batch
    call: AsyncCall
    deadline: float


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


class AsyncClient:
    """A client of one broker, or of the several addresses of one.

    It connects when it is first used and again when the connection is lost; for up to
    ``connect_timeout_s`` each time, then `BrokerUnavailable` says what was tried.  Every
    request ends within ``request_timeout_s``.  *clock* (milliseconds since the epoch) and
    *entropy* make the ids of tasks.

        async with AsyncClient(TcpDialer.of("tq://127.0.0.1:7766")) as client:
            task_id = await client.enqueue(Task.build("mail.send").args("a@b.c").task())
            result = await client.wait(task_id, timeout=10)
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        request_timeout_s: float = 30.0,
        connect_timeout_s: float = 10.0,
        agent: str = f"tq {__version__}",
        entropy: Callable[[int], bytes] = os.urandom,
        clock: Callable[[], int] = _wall_clock_ms,
    ) -> None:
        self._request_timeout_s = request_timeout_s
        self._ids = ClientIds(clock, entropy)
        self._link = AsyncLink(
            dialer,
            Hello(MAGIC, VERSIONS.first, Role.CLIENT, agent, version_max=VERSIONS.last),
            connect_timeout_s=connect_timeout_s,
            entropy=entropy,
            on_welcome=self._on_welcome,
        )
        self._cutter = FrameCutter(self._ids)
        self._enqueuer = AsyncEnqueuer(self._cutter, self._send)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. What is still waiting ends with an error; the client is of no further use."""
        await self._link.close()
        await self._enqueuer.close()

    async def ping(self) -> Pong:
        """Ask whether the broker, and its store, answer."""
        return await self._request(Ping(), Pong)

    # ------------------------------------------------------------------------------------------------- tasks

    async def enqueue(self, task: Task) -> TaskId:
        """Enqueue *task*, durably, and return its id.

        Raises:
            BrokerError: It was refused, here or by the broker: `PayloadTooLarge`,
                `InvalidArgument`, `DuplicateTask`, `BrokerStoreFull`...
            TransportError: The broker could not be reached, or did not answer in time.
        """
        limits = (self._link.welcome or await self._link.ready(self._deadline())).limits
        self._cutter.check(task, limits)
        return await self._enqueuer.enqueue(task, limits)

    async def enqueue_many(self, tasks: Iterable[Task]) -> list[TaskId]:
        """Enqueue *tasks*, durably, in their order, and return their ids.

        They are taken from the iterable as they are sent: a generator of millions is fine.
        Each frame of up to 1,000 is atomic, the whole is not: after the broker has refused
        a frame no more are sent.

        Raises:
            EnqueueRefused: Some were refused; the error lists them and the ids of the rest.
            TransportError: The broker could not be reached, or did not answer in time.
                What was enqueued before is; a task that had an id can be sent again safely,
                as long as the broker knows it: one that has ended and was forgotten
                meanwhile (its ``result_ttl``) is a new task to it, and runs a second time.
        """
        welcome = await self._link.ready(self._deadline())
        outcome = EnqueueOutcome()
        flights: deque[_Flight] = deque()
        for batch in self._cutter.cut(tasks, welcome.limits, outcome):
            await self._launch(batch, flights)
            if len(flights) == FRAMES_IN_FLIGHT_MAX:
                await self._land(flights, outcome)
            if outcome.is_stopped:
                break
        while flights:
            await self._land(flights, outcome)
        return outcome.ids()

    async def wait(self, task_id: TaskId, timeout: float | None = None) -> TaskResult:
        """Return how a task ended, when it has; the broker pushes it, nothing is polled.

        Raises:
            ResultTimeout: It has not ended after *timeout* seconds.
            TaskNotFound: The broker does not know it: never enqueued, or its result was not kept.
            UsageError: This is no task id, or no timeout.
        """
        deadline = deadline_after(timeout, self._link.now())
        checked_ids([task_id])
        while True:
            watch = await self._link.watch([task_id], deadline)
            try:
                results = await self._link.news(watch, deadline)
            except ConnectionLost:
                continue
            finally:
                self._link.unwatch(watch)
            if results:
                return results[0]
            if watch.unknown:
                raise TaskNotFound(_unknown(watch.unknown))
            raise ResultTimeout(_unfinished(watch.missing, timeout))

    async def wait_many(self, task_ids: Iterable[TaskId], timeout: float | None = None) -> AsyncIterator[TaskResult]:
        """Yield how each of some tasks ended, as they end.

        Raises:
            ResultTimeout: Some have not ended after *timeout* seconds, counted from the first step.
            TaskNotFound: The broker does not know some; raised after all others have been yielded.
            UsageError: One is no task id, or this is no timeout.
        """
        deadline = deadline_after(timeout, self._link.now())
        missing: dict[bytes, None] = dict.fromkeys(checked_ids(task_ids))
        unknown: list[bytes] = []
        while missing:
            watch = await self._link.watch(missing, deadline)
            try:
                while watch.missing or watch.ended:
                    results = await self._link.news(watch, deadline)
                    if not results and watch.missing:
                        raise ResultTimeout(_unfinished(watch.missing, timeout))
                    for result in results:
                        del missing[result.id]
                        yield result
            except ConnectionLost:
                continue
            finally:
                self._link.unwatch(watch)
            unknown += watch.unknown
            break
        if unknown:
            raise TaskNotFound(_unknown(unknown))

    async def get(self, task_ids: Iterable[TaskId]) -> list[TaskView | None]:
        """Return what the broker tells about some tasks, in their order; None for one it does not know."""
        views: list[TaskView | None] = []
        pages = [list(page) for page in _pages(task_ids)]
        while pages:
            page = pages.pop(0)
            try:
                views += (await self._request(Get(page), Tasks)).tasks
            except BatchTooLarge:
                # Their results do not fit into one frame together.
                if len(page) == 1:
                    raise
                half = len(page) // 2
                pages[:0] = [page[:half], page[half:]]
        return views

    async def cancel(self, task_ids: Iterable[TaskId]) -> dict[TaskId, BrokerError]:
        """Withdraw tasks that are ready or scheduled; return those that could not be, and why.

        Raises:
            ConnectionLost: It is unknown whether they were withdrawn: look them up.
        """
        refused: dict[TaskId, BrokerError] = {}
        for page in _pages(task_ids):
            answer = await self._request(Cancel(page), Cancelled, is_repeatable=False)
            for each in answer.refused:
                refused[TaskId(each.id)] = broker_error(each.code, each.text)
        return refused

    async def list_tasks(
        self, state: TaskState, queue: str | None = None, limit: int | None = None
    ) -> AsyncIterator[TaskView]:
        """Yield the tasks in *state* (ready, scheduled, running or dead), at most *limit* of them.

        Ready ones come in the order in which they would be handed out, scheduled ones by
        due time, dead ones oldest first.  The list is read in pages: tasks that change
        state meanwhile may be missed or seen twice.
        """
        left, cursor, size = limit, None, PAGE_MAX
        while left is None or left > 0:
            size = size if left is None else min(left, size)
            try:
                page = await self._request(ListTasks(state.value, queue, size, cursor), Tasks)
            except BatchTooLarge:
                # So many do not fit into one frame, with the tracebacks of dead ones for instance.
                if size == 1:
                    raise
                size //= 2
                continue
            for view in page.tasks:
                if view is not None:
                    yield view
            if page.cursor is None:
                return
            cursor = page.cursor
            left = None if left is None else left - len(page.tasks)

    # ------------------------------------------------------------------------------------- queues and brokers

    async def queues(self, name: str | None = None) -> list[QueueView]:
        """Return what all queues hold, or the one named, then in more detail.

        They are read in pages, in the order in which they came to be.

        Raises:
            QueueNotFound: There is no queue of this name.
        """
        pages = self._every_page(lambda cursor: ListQueues(name, PAGE_MAX, cursor), Queues)
        return [view async for page in pages for view in page.queues]

    async def control_queue(self, name: str, action: QueueAction) -> int:
        """Pause, resume or purge a queue; return how many tasks that concerns.

        Raises:
            QueueNotFound: There is no queue of this name.
        """
        return (await self._request(ControlQueue(name, action), Affected, is_repeatable=False)).tasks

    async def control_dead(
        self, action: DeadAction, queue: str | None = None, task_ids: Iterable[TaskId] | None = None
    ) -> int:
        """Redrive or purge dead letters, those of *queue* or those named; return how many.

        Raises:
            UsageError: Neither or both of the two are given.
            WrongState: A named task is not dead; none of its thousand were touched.
        """
        if (queue is None) is (task_ids is None):
            raise UsageError("name a queue, or tasks: control_dead takes one of the two")
        if task_ids is None:
            requests: Iterable[ControlDead] = [ControlDead(action, queue)]
        else:
            requests = (ControlDead(action, None, page) for page in _pages(task_ids))
        tasks = 0
        for request in requests:
            tasks += (await self._request(request, Affected, is_repeatable=False)).tasks
        return tasks

    async def workers(self) -> list[WorkerView]:
        """Return all live workers, read in pages: one that comes meanwhile may be missed."""
        pages = self._every_page(lambda cursor: ListWorkers(PAGE_MAX, cursor), Workers)
        return [view async for page in pages for view in page.workers]

    async def stats(self) -> Stats:
        """Return the figures of the broker as a whole."""
        return await self._request(GetStats(), Stats)

    # ----------------------------------------------------------------------------------------- how it is done

    def _deadline(self) -> float:
        return self._link.now() + self._request_timeout_s

    def _on_welcome(self, welcome: Welcome) -> None:
        self._ids.correct(welcome.clock_ms)

    async def _send(self, frame: Enqueue) -> Enqueued:
        return await self._carry(frame, Enqueued)

    async def _request(self, message: msgspec.Struct, reply: type[R], *, is_repeatable: bool = True) -> R:
        check_readable(message)
        return await self._carry(message, reply, is_repeatable=is_repeatable)

    async def _every_page(
        self, ask: Callable[[bytes | None], msgspec.Struct], reply: type[Page]
    ) -> AsyncIterator[Page]:
        """Yield the pages of a list: *ask* makes the request for the one at a cursor, None for the first."""
        cursor: bytes | None = None
        while True:
            page = await self._request(ask(cursor), reply)
            yield page
            cursor = page.cursor
            if cursor is None:
                return

    async def _carry(self, message: msgspec.Struct, reply: type[R], *, is_repeatable: bool = True) -> R:
        """Send a request until it is answered or the deadline comes."""
        deadline = self._deadline()
        while True:
            call = await self._link.begin(message, deadline)
            try:
                answer = await self._link.finish(call)
            except ConnectionLost:
                if not is_repeatable:
                    raise
            except Overloaded as refusal:
                if not await self._link.pause(refusal.retry_after_ms, deadline):
                    raise
            else:
                assert isinstance(answer, reply)
                return answer

    async def _launch(self, batch: Batch, flights: deque[_Flight]) -> None:
        """Send a frame behind those on their way: no frame overtakes one before it."""
        deadline = self._deadline()
        call = None
        while call is None:
            try:
                call = await self._link.begin(batch.frame, deadline, flights[-1].call if flights else None)
            except ConnectionLost:
                await self._launch_again(flights)
        flights.append(_Flight(batch, call, deadline))

    async def _launch_again(self, flights: deque[_Flight]) -> None:
        # All of them, in order, though some may have been answered: those will be answered as they were.
        done = 0
        while done < len(flights):
            batch, _, deadline = flights[done]
            try:
                call = await self._link.begin(batch.frame, deadline, flights[done - 1].call if done else None)
            except ConnectionLost:
                done = 0
            else:
                flights[done] = _Flight(batch, call, deadline)
                done += 1

    async def _land(self, flights: deque[_Flight], outcome: EnqueueOutcome) -> None:
        """Wait for the answer to the oldest frame on its way."""
        batch, call, deadline = flights[0]
        try:
            answer = await self._link.finish(call)
        except ConnectionLost:
            await self._launch_again(flights)
        except BrokerError as refusal:
            if isinstance(refusal, Overloaded) and await self._link.pause(refusal.retry_after_ms, deadline):
                await self._launch_again(flights)
            else:
                flights.popleft()
                outcome.refused(batch, refusal)
        else:
            flights.popleft()
            assert isinstance(answer, Enqueued)
            outcome.answered(batch, answer)


def _pages(task_ids: Iterable[TaskId]) -> Iterable[list[bytes]]:
    remaining = iter(task_ids)
    while page := list[bytes](islice(remaining, REQUEST_IDS_MAX)):
        yield page


def _named(ids: Iterable[bytes]) -> str:
    several = list(ids)
    more = f" and {len(several) - 1:,} others" if len(several) > 1 else ""
    return f"task {format_id(several[0])}{more}"


def _unknown(ids: Iterable[bytes]) -> str:
    return f"{_named(ids)}: the broker does not know it, or keeps no result of it"


def _unfinished(ids: Iterable[bytes], timeout: float | None) -> str:
    return f"{_named(ids)}: not ended after {timeout:g} s"
