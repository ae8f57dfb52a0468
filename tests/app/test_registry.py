"""The registry: one handler a name, and what a worker gets from it."""

import types

import pytest

from tq.app.registry import Handler, Registry
from tq.core.errors import InvalidArguments, UsageError
from tq.core.task import TaskSpec


async def send(to: str, size: int = 1) -> int:
    return size


def resize(width: int) -> int:
    return width


def registry_with(*handlers: Handler) -> Registry:
    registry = Registry()
    for handler in handlers:
        registry.add(handler)
    return registry


def test_a_handler_is_found_by_the_name_of_its_task() -> None:
    handler = Handler(send, TaskSpec("mail.send"))
    registry = registry_with(handler)

    assert registry.get("mail.send") is handler
    assert registry.get("mail.receive") is None
    assert "mail.send" in registry
    assert [h.name for h in registry] == ["mail.send"]
    assert len(registry) == 1


def test_a_handler_says_whether_it_must_be_awaited() -> None:
    assert Handler(send, TaskSpec("a")).is_async
    assert not Handler(resize, TaskSpec("b")).is_async


@pytest.mark.parametrize("codec", ["msgpack", "json"])
def test_a_handler_reads_its_arguments_and_writes_its_result_in_the_codec_of_the_task(codec: str) -> None:
    handler = Handler(send, TaskSpec("mail.send"))
    payload = handler.calls(codec).encode(("a@b.c",), {"size": 2})

    assert handler.decode(payload, codec) == (("a@b.c",), {"size": 2})
    assert handler.calls(codec).decode_result(handler.encode_result(2, codec)) == 2


def test_a_handler_refuses_arguments_of_another_signature() -> None:
    handler = Handler(send, TaskSpec("mail.send"))
    payload = Handler(resize, TaskSpec("x")).calls("msgpack").encode((3,), {})

    with pytest.raises(InvalidArguments, match="argument 'to'"):
        handler.decode(payload, "msgpack")


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UsageError, match="got 'pickle'"):
        Handler(send, TaskSpec("mail.send")).decode(b"", "pickle")


def test_two_tasks_may_not_share_a_name() -> None:
    registry = registry_with(Handler(send, TaskSpec("mail.send")))

    with pytest.raises(UsageError, match=r"two tasks are called 'mail.send': .*test_registry.py:\d+ and .*name="):
        registry.add(Handler(resize, TaskSpec("mail.send")))


def declared_in(module: types.ModuleType, source: str) -> Handler:
    exec(compile(source, "mail.py", "exec"), module.__dict__)  # stands for an import
    return Handler(module.send, TaskSpec("mail.send"))


def test_a_module_that_is_imported_again_replaces_its_tasks() -> None:
    source = "def send(to: str) -> None: ..."
    first = declared_in(types.ModuleType("mail"), source)
    second = declared_in(types.ModuleType("mail"), source)
    registry = registry_with(first)

    registry.add(second)

    assert registry.get("mail.send") is second


def test_a_function_of_the_same_name_further_down_is_a_mistake() -> None:
    registry = registry_with(declared_in(types.ModuleType("mail"), "def send(): ..."))

    with pytest.raises(UsageError, match=r"mail.py:1 and mail.py:3"):
        registry.add(declared_in(types.ModuleType("mail"), "\n\ndef send(): ..."))


def test_a_cell_of_a_notebook_may_declare_its_task_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = types.ModuleType("__main__")
    monkeypatch.setitem(__import__("sys").modules, "__main__", session)
    registry = registry_with(declared_in(session, "def send(): ..."))
    again = declared_in(session, "\n\ndef send(): ...")

    registry.add(again)

    assert registry.get("mail.send") is again


def test_an_annotation_may_name_what_is_defined_later_and_is_checked_at_the_start_of_a_worker() -> None:
    module = types.ModuleType("mail")
    handler = declared_in(module, "def send(to: 'Address') -> None: ...")
    registry = registry_with(handler)

    with pytest.raises(UsageError, match="'Address' is not defined"):
        registry.check()
    module.Address = str  # type: ignore[attr-defined]
    registry.check()

    assert handler.calls("msgpack").encode(("a@b.c",), {})
