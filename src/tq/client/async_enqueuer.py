"""The single enqueues of one turn of the event loop, sent as one frame.

A hundred callers that enqueue one task each cost the broker, and the network, little
more than one.  A caller that finds none of them on its way does not wait for others.
Invariant: a refused task fails its own caller and no other.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tq.client.async_connection import fail
from tq.client.batches import EnqueueOutcome, FrameCutter
from tq.core.errors import BrokerError, ErrorCode, broker_error
from tq.core.ids import TaskId
from tq.core.task import Task
from tq.protocol.messages import Enqueue, Enqueued, Limits

# After these the frame, or each of its tasks, may have been enqueued or may yet be: it is not taken apart.
_FINAL = frozenset({ErrorCode.OUTCOME_UNKNOWN, ErrorCode.INTERNAL})


class _Waiting(NamedTuple):
    """One caller's task; the future gets its id, or None: no other came in this turn, send it yourself."""

    task: Task
    done: asyncio.Future[TaskId | None]


class AsyncEnqueuer:
    """Collects single tasks; *send* carries one frame to the broker, over lost connections and all."""

    def __init__(self, cutter: FrameCutter, send: Callable[[Enqueue], Awaitable[Enqueued]]) -> None:
        self._cutter = cutter
        self._send = send
        self._waiting: list[_Waiting] = []
        self._sending: set[asyncio.Task[None]] = set()
        # Frames of one task that their own callers carry.
        self._alone = 0

    async def enqueue(self, task: Task, limits: Limits) -> TaskId:
        """Enqueue *task*, which has been checked, and return its id.

        Raises:
            BrokerError: The broker refused it.
        """
        if not (self._alone or self._sending or self._waiting):
            return await self._enqueue_alone(task)
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._flush, loop, limits)
        waiting = _Waiting(task, loop.create_future())
        self._waiting.append(waiting)
        task_id = await waiting.done
        return await self._enqueue_alone(task) if task_id is None else task_id

    async def close(self) -> None:
        """Wait for the frames on their way to end; the callers of those with one task do so themselves."""
        while self._sending:
            await asyncio.wait(self._sending)

    def _flush(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        # Who went away in this turn has sent nothing yet.
        waiting = [one for one in self._waiting if not one.done.done()]
        self._waiting = []
        if len(waiting) == 1:
            waiting[0].done.set_result(None)
            return
        for batch in self._cutter.cut([one.task for one in waiting], limits, EnqueueOutcome()):
            self._start(loop, batch.frame, waiting[batch.first : batch.first + len(batch.frame.tasks)])

    async def _enqueue_alone(self, task: Task) -> TaskId:
        frame = self._cutter.single(task)
        self._alone += 1
        try:
            answer = await self._send(frame)
        finally:
            self._alone -= 1
        for refused in answer.refused:
            raise broker_error(refused.code, refused.text)
        return TaskId(frame.tasks[0].id)

    def _start(self, loop: asyncio.AbstractEventLoop, frame: Enqueue, callers: list[_Waiting]) -> None:
        sending = loop.create_task(self._carry(frame, callers))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _carry(self, frame: Enqueue, callers: list[_Waiting]) -> None:
        try:
            answer = await self._send(frame)
        except BrokerError as refusal:
            if len(callers) == 1 or refusal.retryable or refusal.code in _FINAL:
                _tell(callers, refusal)
                return
            # A frame is refused whole for the sake of one task: nothing is enqueued, and each is tried on its own.
            for caller in callers:
                await self._carry(self._cutter.single(caller.task), [caller])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' to handle
            _tell(callers, error)
        except asyncio.CancelledError:
            for caller in callers:
                caller.done.cancel()
            raise
        else:
            for refused in answer.refused:
                _tell([callers[refused.index]], broker_error(refused.code, refused.text))
            for caller, task in zip(callers, frame.tasks, strict=True):
                if not caller.done.done():
                    caller.done.set_result(TaskId(task.id))


def _tell(callers: list[_Waiting], error: Exception) -> None:
    for caller in callers:
        fail(caller.done, copy.copy(error))
