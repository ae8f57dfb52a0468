"""The app: what a declaration makes, without a broker."""

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tq.app.app import App
from tq.app.handler import TaskHandler
from tq.core.errors import InvalidArguments, UsageError
from tq.core.retry import RetryPolicy
from tq.core.task import TaskSpec


@pytest.fixture
def app() -> App:
    return App("tq://127.0.0.1:1")


def test_a_bare_decorator_declares_a_task_with_defaults(app: App) -> None:
    @app.task
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add.name == f"{__name__}.test_a_bare_decorator_declares_a_task_with_defaults.<locals>.add"
    assert add.spec == TaskSpec(add.name)
    assert add(2) == 3
    assert add.__doc__ == "Add."
    assert add.name in app.registry


def test_a_decorator_with_options_declares_a_task_with_these(app: App) -> None:
    @app.task(name="mail.send", queue="mail", priority="high", retry=RetryPolicy(max_attempts=2), timeout=30)
    async def send(to: str) -> str:
        return to

    handler = app.registry.get("mail.send")

    assert send.spec == TaskSpec("mail.send", "mail", 212, 30_000, retry=RetryPolicy(max_attempts=2))
    assert handler is not None
    assert handler.is_async
    assert handler.spec is send.spec


def test_one_decorator_serves_several_functions(app: App) -> None:
    mail = app.task(queue="mail", reject_on=(LookupError,))

    def a() -> None: ...
    def b() -> None: ...

    queues = [mail(a).spec.queue, mail(b).spec.queue]

    assert queues == ["mail", "mail"]
    assert [handler.reject_on for handler in app.registry] == [(LookupError,), (LookupError,)]


def test_the_exceptions_to_reject_on_reach_the_worker(app: App) -> None:
    @app.task(name="a", reject_on=(ValueError,))
    def a() -> None: ...

    handler = app.registry.get("a")

    assert handler is not None
    assert handler.reject_on == (ValueError,)


def test_other_options_make_another_task_and_leave_the_first_alone(app: App) -> None:
    @app.task(name="a", queue="one")
    def a() -> None: ...

    other = a.using(queue="two", priority=250).using(timeout=5)

    assert other.spec == TaskSpec("a", "two", 250, 5_000)
    assert a.spec == TaskSpec("a", "one")
    assert len(app.registry) == 1


@pytest.mark.parametrize(
    "options", [{"que": "mail"}, {"priority": 300}, {"reject_on": ValueError}, {"codec": "pickle"}]
)
def test_a_wrong_option_is_refused_where_the_task_is_declared(app: App, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):

        @app.task(name="a", **options)
        def a() -> None: ...

    assert len(app.registry) == 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "1 to 255 characters; got 0"),
        ("x" * 256, "got 256"),
        ("\ud800", "UTF-8 can encode"),
        (5, "a task name is text; got 5"),
    ],
)
def test_a_name_that_is_none_is_refused_and_not_replaced(app: App, name: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):

        @app.task(name=name)
        def a() -> None: ...

    assert len(app.registry) == 0


@pytest.mark.parametrize("given", ["seven", b"seven", None, 7])
def test_a_handle_needs_the_text_of_an_id(app: App, given: Any) -> None:
    with pytest.raises(UsageError, match="a task id is a UUID"):
        app.handle(given)


def test_a_name_is_used_once(app: App) -> None:
    @app.task(name="a")
    def one() -> None: ...

    with pytest.raises(UsageError, match="two tasks are called 'a'"):

        @app.task(name="a")
        def two() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Plain:
    """A class that is no handler."""


@pytest.mark.parametrize(
    "function, advice",
    [
        (generator, "return a list"),
        (async_generator, "return a list"),
        (Plain, r"app.register\(Plain\(\)\)"),
        (staticmethod(len), "a function of a module"),
        (3, "a function of a module"),
        (functools.partial(print, 1), "name="),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_advice(app: App, function: Any, advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        app.task(function)


class Send(TaskHandler):
    name = "mail.send"
    queue = "mail"
    priority = "low"
    reject_on = (LookupError,)

    async def run(self, to: str) -> str:
        return to


class Resize(TaskHandler):
    def run(self, width: int) -> int:
        return width


def test_a_handler_class_is_a_task_with_its_attributes_as_options(app: App) -> None:
    send = app.register(Send())
    handler = app.registry.get("mail.send")

    assert send.spec == TaskSpec("mail.send", "mail", 42)
    assert handler is not None
    assert handler.reject_on == (LookupError,)


def test_a_handler_class_is_named_by_itself(app: App) -> None:
    resize = app.register(Resize())

    assert resize.name == f"{__name__}.Resize"
    assert resize(3) == 3


def test_only_a_handler_can_be_registered(app: App) -> None:
    with pytest.raises(UsageError, match="an instance of a subclass of TaskHandler"):
        app.register(Send)  # type: ignore[call-overload]


def test_the_url_is_the_one_given_else_of_the_environment_else_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TQ_URL", raising=False)
    without = App()

    assert without.url == "tq://127.0.0.1:7766"
    monkeypatch.setenv("TQ_URL", "tq://broker:1")
    assert without.url == "tq://broker:1"
    assert App("tq://other").url == "tq://other"


def test_an_id_that_is_none_is_refused(app: App) -> None:
    with pytest.raises(UsageError, match="a task id is a UUID"):
        app.handle("42")


def test_an_app_and_its_parts_show_what_they_are(app: App) -> None:
    send = app.register(Send())

    assert repr(app) == "<App tq://127.0.0.1:1 with 1 tasks>"
    assert repr(send) == "<task 'mail.send' on queue 'mail'>"
    assert repr(app.handle("018f4e2c-0000-7000-8000-000000000000")).endswith("018f4e2c-0000-7000-8000-000000000000>")


@pytest.mark.parametrize("soft_timeout", [0, -1, 30, 31.5, True, "10"])
def test_a_soft_timeout_that_is_none_or_comes_too_late_is_refused(soft_timeout: Any) -> None:
    app = App("memory:")

    with pytest.raises(UsageError, match="soft_timeout must be above 0 and below the timeout of 30 seconds"):
        app.task(name="work", timeout=30, soft_timeout=soft_timeout)(lambda: None)


def test_a_soft_timeout_is_the_handlers_own_and_not_sent() -> None:
    app = App("memory:")

    task = app.task(name="work", timeout=30, soft_timeout=10)(lambda: None)

    handler = app.registry.get("work")
    assert handler is not None
    assert handler.soft_timeout_s == 10
    assert task.spec == TaskSpec("work", timeout_ms=30_000)


@pytest.mark.parametrize(
    "redact, complaint",
    [
        ("password", "redact is a tuple of parameters' names"),
        ((1,), "redact is a tuple of parameters' names"),
        (("pasword",), "redact names pasword, which is no parameter; there are user, password"),
    ],
)
def test_what_is_to_be_redacted_must_be_there(app: App, redact: Any, complaint: str) -> None:
    def log_in(user: str, password: str) -> None: ...

    with pytest.raises(UsageError, match=complaint):
        app.task(name="log_in", redact=redact)(log_in)


def test_a_keyword_that_only_a_call_names_can_be_redacted(app: App) -> None:
    @app.task(name="log_in", redact=("password",))
    def log_in(**credentials: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"argument 'password'.*withheld"):
        log_in.enqueue(password="x")  # type: ignore[arg-type]


def test_a_call_of_a_batch_that_is_none_is_not_shown_where_something_is_redacted(app: App) -> None:
    @app.task(name="log_in", redact=("password",))
    def log_in(password: str) -> None: ...

    with pytest.raises(InvalidArguments, match=r"got a str$"):
        log_in.enqueue_many(["hunter2"])  # type: ignore[list-item]
