"""The app: the tasks that a program declares, and its way to the broker.

    app = App("tq://127.0.0.1:7766")

    @app.task(queue="mail", priority="high", timeout=30)
    async def send(to: str, body: str) -> str: ...

    send.enqueue("a@b.c", "hi")

Invariant: making an app and declaring tasks opens no connection and reads no file: a
module that does so can be imported anywhere.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, ParamSpec, Protocol, Self, TypeVar, Unpack, overload

from tq.app.clients import Clients
from tq.app.codec import CODECS, codec_named, decode
from tq.app.declared import DeclaredTask, task_id_of
from tq.app.handle import Handle
from tq.app.handler import TaskHandler, function_of, options_of
from tq.app.lifespan import Hook
from tq.app.middleware import Middleware
from tq.app.naming import default_name
from tq.app.options import Declaration, check_exceptions, check_redact, check_soft_timeout, spec_with
from tq.app.registry import Handler, Registry
from tq.client import AsyncClient, Dialer, SyncClient
from tq.core.errors import UsageError
from tq.core.ids import TaskId
from tq.core.task import Task, TaskSpec

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Hooked = TypeVar("Hooked", bound=Callable[..., Any])


class Decorator(Protocol):
    """What ``app.task(...)`` returns: it makes a task of a function."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> DeclaredTask[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> DeclaredTask[P, R, R]: ...


class AsyncRunner(Protocol[P, R_co]):
    """A `TaskHandler` whose ``run`` is ``async def``."""

    @property
    def run(self) -> Callable[P, Coroutine[Any, Any, R_co]]:
        """The task."""


class Runner(Protocol[P, R_co]):
    """A `TaskHandler` whose ``run`` is a plain method."""

    @property
    def run(self) -> Callable[P, R_co]:
        """The task."""


class App:
    """The tasks of a program and its connections to a broker.

    *url* is ``tq://host:port[,host:port...]``, the addresses of one broker;
    ``file:directory`` for the broker on a data directory of this machine, which is in the
    first process that opens it and which the others join;
    ``memory:`` for a broker inside this process that keeps nothing (tests, first steps);
    None for ``$TQ_URL``, else ``tq://127.0.0.1:7766``.

    *middleware* is run by workers around every task.

    One app may be used from many threads and event loops, and before and after a fork:
    each event loop and each process gets its own connections, at first use.

    Raises:
        ConfigError: *url* is of no known form; that of ``$TQ_URL`` is looked at when it is needed.
    """

    def __init__(self, url: str | None = None, *, middleware: Iterable[Middleware] = ()) -> None:
        self.registry = Registry(middleware)
        self._clients = Clients(url)

    @property
    def url(self) -> str:
        """The broker's URL."""
        return self._clients.url

    # ------------------------------------------------------------------------------------------------- declaring

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> DeclaredTask[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> DeclaredTask[P, R, R]: ...
    @overload
    def task(self, **options: Unpack[Declaration]) -> Decorator: ...
    def task(  # type: ignore[misc]  # mypy does not see that **Any takes an unpacked TypedDict
        self, function: Callable[..., Any] | None = None, /, **options: Any
    ) -> Any:
        """Declare a function as a task: ``@app.task`` or ``@app.task(queue="mail", ...)``.

        The options are described in `tq.app.options.Declaration`.

        Raises:
            UsageError: An option is out of its bounds, another task has the name, or
                this is no function that can be a task.
        """
        if function is not None:
            return self._declare(function, function, options)

        def declare(function: Callable[..., Any]) -> DeclaredTask[..., Any, Any]:
            return self._declare(function, function, dict(options))

        return declare

    @overload
    def register(self, handler: AsyncRunner[P, R]) -> DeclaredTask[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def register(self, handler: Runner[P, R]) -> DeclaredTask[P, R, R]: ...
    def register(self, handler: Any) -> Any:
        """Declare a `TaskHandler` as a task, and return the task.

        Raises:
            UsageError: As `task` does; or it is no `TaskHandler`.
        """
        if not isinstance(handler, TaskHandler):
            raise UsageError(f"app.register takes an instance of a subclass of TaskHandler; got {handler!r}")
        return self._declare(function_of(handler), type(handler), options_of(handler))

    def on_worker_start(self, function: Hooked) -> Hooked:
        """Declare a function that runs in each process of a worker that runs handlers, before its first task.

        It is ``def`` or ``async def``, or a generator that yields once: the rest of it runs
        when the process stops.  What it returns or yields is given to parameters with the
        same annotation and the default `PROVIDED`.  Hooks run in the order of their declaration.

        Raises:
            UsageError: It is no function, or has a parameter that is not provided.
        """
        self.registry.hooks.at_start.append(Hook(function))
        return function

    def on_worker_stop(self, function: Hooked) -> Hooked:
        """Declare a function, ``def`` or ``async def``, that runs in each such process after its last task.

        The last one declared runs first; a process that is killed runs none.

        Raises:
            UsageError: As `on_worker_start` does.
        """
        self.registry.hooks.at_stop.append(Hook(function))
        return function

    def _declare(
        self, function: Callable[..., Any], named_by: Callable[..., Any], options: dict[str, Any]
    ) -> DeclaredTask[..., Any, Any]:
        _check_function(function)
        name = options.pop("name", None)
        if name is None:
            name = default_name(named_by)
        reject_on = check_exceptions(name, options.pop("reject_on", ()))
        redact = check_redact(name, function, options.pop("redact", ()))
        soft_timeout = options.pop("soft_timeout", None)
        spec = spec_with(TaskSpec(name), options)
        handler = Handler(function, spec, reject_on, check_soft_timeout(spec, soft_timeout), redact)
        self.registry.add(handler)
        return DeclaredTask(handler, handler.spec, self._clients)

    # ------------------------------------------------------------------------------------------- by name, by id

    def enqueue(self, task: Task) -> Handle[Any]:
        """Enqueue a task whose code this program may not have.

            app.enqueue(Task.build("mail.send").args("a@b.c").task())

        Raises:
            As `DeclaredTask.enqueue` does; arguments are checked by the worker.
        """
        return self._handle(task, self._clients.blocking().enqueue(task))

    async def aenqueue(self, task: Task) -> Handle[Any]:
        """Do what `enqueue` does, in a coroutine."""
        return self._handle(task, await self._clients.of_this_loop().enqueue(task))

    def handle(self, task_id: str) -> Handle[Any]:
        """Return a handle of the task *task_id*, whether or not there is one.

        Its result is plain data; `DeclaredTask.handle` knows the type.

        Raises:
            UsageError: *task_id* is no task id.
        """
        return Handle(task_id_of(task_id), self._clients, _read_plain)

    def enqueue_many(self, tasks: Iterable[Task]) -> list[Handle[Any]]:
        """Enqueue many tasks, which may be of different kinds; as `DeclaredTask.enqueue_many` does."""
        tasks = list(tasks)
        ids = self._clients.blocking().enqueue_many(tasks)
        return [self._handle(task, i) for task, i in zip(tasks, ids, strict=True)]

    async def aenqueue_many(self, tasks: Iterable[Task]) -> list[Handle[Any]]:
        """Do what `enqueue_many` does, in a coroutine."""
        tasks = list(tasks)
        ids = await self._clients.of_this_loop().enqueue_many(tasks)
        return [self._handle(task, i) for task, i in zip(tasks, ids, strict=True)]

    def results(self, handles: Iterable[Handle[R]], timeout: float | None = None) -> Iterator[Handle[R]]:
        """Yield each of *handles* once its task has ended, in the order in which they end.

        Its `Handle.result` then returns, or raises, at once:

            for handle in app.results(index.enqueue_many(files)):
                print(handle.result())

        Raises:
            ResultTimeout: Some have not ended *timeout* seconds after the first step.
            TaskNotFound: Some ended longer ago than their results are kept; all others
                have been yielded.
        """
        waiting = _by_id(handles)
        for outcome in self._clients.blocking().wait_many(list(waiting), timeout):
            for handle in waiting.pop(TaskId(outcome.id)):
                yield handle.ended(outcome)

    async def aresults(self, handles: Iterable[Handle[R]], timeout: float | None = None) -> AsyncIterator[Handle[R]]:
        """Do what `results` does, for ``async for``."""
        waiting = _by_id(handles)
        async for outcome in self._clients.of_this_loop().wait_many(list(waiting), timeout):
            for handle in waiting.pop(TaskId(outcome.id)):
                yield handle.ended(outcome)

    def _handle(self, task: Task, task_id: TaskId) -> Handle[Any]:
        handler = self.registry.get(task.spec.name)
        return Handle(task_id, self._clients, handler.decode_result if handler else _read_plain)

    # ---------------------------------------------------------------------------------------------- connections

    @property
    def client(self) -> SyncClient:
        """The client for threads: lists, queues, workers, figures."""
        return self._clients.blocking()

    @property
    def async_client(self) -> AsyncClient:
        """The client for coroutines of the running event loop.

        Raises:
            UsageError: No event loop runs here.
        """
        return self._clients.of_this_loop()

    def dialer(self) -> Dialer:
        """Return what makes connections to the broker: a worker makes its own.

        Raises:
            ConfigError: The URL is not of a known form.
        """
        return self._clients.dialer()

    def close(self) -> None:
        """Close the connection of this process's threads; the app can be used again.

        Event loops close theirs when they end, or by `aclose`.  The broker of a directory
        goes to the next process that needs it, unless another app of this one uses it; it is
        closed within some seconds.  The broker of ``memory:``
        goes, with all it holds, and such an app cannot be used again.
        """
        self._clients.close()

    async def aclose(self) -> None:
        """Close the connection of this event loop, and do what `close` does."""
        await self._clients.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<App {self.url} with {len(self.registry)} tasks>"


def _by_id(handles: Iterable[Handle[R]]) -> dict[TaskId, list[Handle[R]]]:
    waiting: dict[TaskId, list[Handle[R]]] = {}
    for handle in handles:
        waiting.setdefault(handle.task_id, []).append(handle)
    return waiting


_PLAIN = {name: codec.decoder(Any) for name, codec in CODECS.items()}


def _read_plain(result: bytes, codec: str) -> Any:
    return decode(_PLAIN[codec_named(codec).name], result)


def _check_function(function: object) -> None:
    """Raise UsageError if *function* cannot be a task, with what to do instead."""
    if isinstance(function, staticmethod | classmethod | property) or not callable(function):
        raise UsageError(f"{function!r} cannot be a task: decorate a function of a module, or write a TaskHandler")
    if inspect.isclass(function):
        raise UsageError(
            f"{function!r} is a class: make it a TaskHandler and declare it with app.register({function.__name__}())"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"{function!r} is a generator: a task returns its result whole; return a list")
