"""Declared tasks: what ``@app.task`` makes of a function.

The object is still the function when called; its other methods put the call on a queue.

Invariant: its options are frozen: `DeclaredTask.using` returns another one, so those set in one
place are never seen in another.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

from tq.app.clients import Clients
from tq.app.handle import Handle
from tq.app.options import Options, spec_with
from tq.app.registry import Handler
from tq.core.errors import InvalidArguments, UsageError
from tq.core.ids import TaskId, parse_id
from tq.core.task import Task, TaskSpec

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")

Call = tuple[Any, ...] | list[Any] | Mapping[str, Any]
"""The arguments of one call in a batch: positional ones in a tuple, or named ones in a mapping."""


class DeclaredTask(Generic[P, C, R]):
    """A task that this program declares: call it, or enqueue the call.

    *P* are the function's parameters, *R* is its result, *C* what calling it returns:
    *R*, or a coroutine of it.  The methods that start with ``a`` are for coroutines and
    do what those without it do for threads.
    """

    def __init__(self, handler: Handler, spec: TaskSpec, clients: Clients) -> None:
        functools.update_wrapper(self, handler.function)
        self._spec = spec
        self._handler = handler
        self._clients = clients

    @property
    def spec(self) -> TaskSpec:
        """Its options, as they are sent with each task."""
        return self._spec

    @property
    def name(self) -> str:
        """The name by which workers know the task."""
        return self.spec.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call the plain function, here and now: nothing is enqueued.

        Raises:
            UsageError: Nobody gives it what a worker would provide: pass it by its name.
        """
        if missing := self._handler.provided - kwargs.keys():
            raise UsageError(
                f"task {self.name!r}: {', '.join(sorted(missing))} is provided by a worker only; "
                f"pass it by its name to call the function here"
            )
        return self._handler.function(*args, **kwargs)  # type: ignore[no-any-return]

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Enqueue the call; when this returns, the task is durable.

        Raises:
            InvalidArguments: They do not fit the function's annotations. Nothing was sent.
            NotSerializable: An argument cannot be encoded. Nothing was sent.
            BrokerError: The broker refused the task.
            BrokerUnavailable: There is no broker at the app's URL.
        """
        return self._handle(self._clients.blocking().enqueue(self._task(args, kwargs)))

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Do what `enqueue` does, in a coroutine."""
        return self._handle(await self._clients.of_this_loop().enqueue(self._task(args, kwargs)))

    def enqueue_many(self, calls: Iterable[Call]) -> list[Handle[R]]:
        """Enqueue a call for each tuple of positional, or mapping of named arguments; far cheaper than one by one.

        All are checked before any is sent; they are then sent in as many requests as the
        broker's limits ask for.  A flawed task is refused alone; the others of its request
        are enqueued together or not at all.

        Raises:
            EnqueueRefused: The broker refused some; the error lists them and the ids of the rest.
            InvalidArguments, NotSerializable, BrokerUnavailable: As for `enqueue`.
        """
        return self._handles(self._clients.blocking().enqueue_many(self._tasks(calls)))

    async def aenqueue_many(self, calls: Iterable[Call]) -> list[Handle[R]]:
        """Do what `enqueue_many` does, in a coroutine."""
        return self._handles(await self._clients.of_this_loop().enqueue_many(self._tasks(calls)))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Enqueue the call and wait for its result, as long as it takes."""
        return self.enqueue(*args, **kwargs).result()

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do what `call` does, in a coroutine."""
        return await (await self.aenqueue(*args, **kwargs))

    def using(self, **options: Unpack[Options]) -> "DeclaredTask[P, C, R]":
        """Return the same task with other options for what is enqueued by it.

            send.using(priority=250, queue="mail").enqueue("a@b.c", "hi")

        Raises:
            UsageError: An option is out of its bounds.
        """
        return DeclaredTask(self._handler, spec_with(self.spec, options), self._clients)

    def handle(self, task_id: str) -> Handle[R]:
        """Return a handle of the task *task_id*, which must be one of this name.

        Raises:
            UsageError: *task_id* is no task id.
        """
        return self._handle(task_id_of(task_id))

    def __repr__(self) -> str:
        return f"<task {self.name!r} on queue {self.spec.queue!r}>"

    def _task(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Task:
        return Task(self.spec, self._handler.calls(self.spec.codec).encode(args, kwargs))

    def _tasks(self, calls: Iterable[Call]) -> list[Task]:
        encode = self._handler.calls(self.spec.codec).encode
        tasks = []
        for number, call in enumerate(calls):
            match call:
                case tuple() | list():
                    payload = encode(tuple(call), {})
                case Mapping():
                    payload = encode((), dict(call))
                case _:
                    raise InvalidArguments(
                        f"task {self.name!r}: call number {number} of a batch must be a tuple of "
                        f"positional or a mapping of named arguments; got {self._shown(call)}"
                    )
            tasks.append(Task(self.spec, payload))
        return tasks

    def _shown(self, call: object) -> str:
        return f"a {type(call).__name__}" if self._handler.redact else repr(call)

    def _handle(self, task_id: TaskId) -> Handle[R]:
        return Handle(task_id, self._clients, self._handler.decode_result)

    def _handles(self, task_ids: Iterable[TaskId]) -> list[Handle[R]]:
        clients, read = self._clients, self._handler.decode_result
        return [Handle(task_id, clients, read) for task_id in task_ids]


def task_id_of(text: str) -> TaskId:
    """Return the id in *text*.

    Raises:
        UsageError: There is none.
    """
    try:
        return parse_id(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
