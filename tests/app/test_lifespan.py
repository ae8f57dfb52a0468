"""Hooks of a worker: what is declared, what it provides, and what is refused before a worker starts."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Annotated, Any

import pytest

from tq.app.app import App
from tq.app.lifespan import PROVIDED, Hook
from tq.core.errors import InvalidArguments, UsageError


class Database:
    """What a hook opens."""


class Cache:
    """Another."""


Replica = Annotated[Database, "replica"]


def returns() -> Database:
    return Database()


async def returns_later() -> Database:
    return Database()


def yields() -> Iterator[Database]:
    yield Database()


def generates() -> Generator[Database, None, None]:
    yield Database()


async def yields_later() -> AsyncIterator[Database]:
    yield Database()


def nothing() -> None: ...


def yields_nothing() -> Iterator[None]:
    yield


def unannotated():  # type: ignore[no-untyped-def]  # noqa: ANN201
    return 1


@pytest.fixture
def app() -> App:
    return App("tq://127.0.0.1:1")


@pytest.mark.parametrize("function", [returns, returns_later, yields, generates, yields_later])
def test_a_hook_provides_what_it_is_annotated_to_return_or_yield(function: Callable[..., Any]) -> None:
    assert Hook(function).provides is Database


@pytest.mark.parametrize("function", [nothing, yields_nothing, unannotated])
def test_a_hook_may_provide_nothing(function: Callable[..., Any]) -> None:
    assert Hook(function).provides is None


def test_a_provided_parameter_is_none_of_the_tasks_arguments(app: App) -> None:
    @app.task(name="count")
    def count(table: str, *, database: Database = PROVIDED) -> int:
        return len(table)

    handler = app.registry.get("count")
    assert handler is not None
    args, kwargs = handler.decode(handler.calls("msgpack").encode(("users",), {}), "msgpack")

    assert (args, kwargs) == (("users",), {})
    assert handler.provided_types() == {"database": Database}
    with pytest.raises(InvalidArguments, match="unexpected keyword argument 'database'"):
        count.enqueue("users", database=None)  # type: ignore[arg-type]


def test_a_plain_call_needs_what_a_worker_would_provide(app: App) -> None:
    @app.task(name="count")
    def count(table: str, *, database: Database = PROVIDED) -> int:
        assert isinstance(database, Database)
        return len(table)

    assert count("users", database=Database()) == 5
    with pytest.raises(UsageError, match="database is provided by a worker only"):
        count("users")


def test_what_is_provided_comes_from_one_hook_by_its_annotation(app: App) -> None:
    def replica() -> Replica:
        return Database()

    @app.task(name="count")
    def count(*, main: Database = PROVIDED, replica: Replica = PROVIDED) -> None: ...

    app.on_worker_start(returns)
    app.on_worker_start(replica)

    app.registry.check()


def _twice(app: App) -> None:
    app.on_worker_start(returns)
    app.on_worker_start(yields)


def _missing(app: App) -> None:
    @app.task(name="count")
    def count(*, database: Database = PROVIDED) -> None: ...


def _too_early(app: App) -> None:
    @app.on_worker_start
    def cache(*, database: Database = PROVIDED) -> Cache:
        return Cache()

    app.on_worker_start(returns)


def _unannotated(app: App) -> None:
    @app.task(name="count")
    def count(*, database=PROVIDED) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001


@pytest.mark.parametrize(
    "declare, complaint",
    [
        (_twice, r"the hooks .*returns and .*yields both provide Database"),
        (_missing, r"task 'count': no hook provides Database for its parameter 'database'"),
        (_too_early, r"the hook .*cache: no hook provides Database for its parameter 'database'"),
        (_unannotated, r"its parameter 'database' needs an annotation"),
    ],
)
def test_a_worker_does_not_start_when_it_is_not_plain_what_is_provided(
    declare: Callable[[App], None], complaint: str, app: App
) -> None:
    declare(app)

    with pytest.raises(UsageError, match=complaint):
        app.registry.check()


def test_a_provided_parameter_must_be_keyword_only(app: App) -> None:
    def count(database: Database = PROVIDED) -> None: ...

    with pytest.raises(UsageError, match=r"task 'count': its parameter 'database' is provided, so it must come after"):
        app.task(name="count")(count)


def test_a_hook_takes_no_arguments(app: App) -> None:
    def opened(url: str) -> None: ...

    with pytest.raises(UsageError, match="nobody calls it with arguments"):
        app.on_worker_start(opened)
    with pytest.raises(UsageError, match="decorate a function"):
        app.on_worker_stop(Database)
