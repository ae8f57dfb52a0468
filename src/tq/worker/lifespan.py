"""An app's hooks, run in one process: at its start in their order, at its stop in the opposite one.

Invariant: what has begun is ended, once, whatever else fails; hooks that never ran are not
undone.
"""

import asyncio
import inspect
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tq.app.lifespan import Hook, Hooks, provided_types

_log = logging.getLogger(__name__)

# A child of the process pool has less: its parent kills it `processes._EXIT_S` after it was told to end.
_STOP_S = 10.0
_END = object()


class HookFailed(Exception):
    """A hook raised when a worker's process started: it cannot work.  The cause is what was raised."""


class Lifespan:
    """One run of *hooks*; ``provided`` is what they gave, by annotation."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._values: dict[Any, Any] = {}
        self._open: list[tuple[Hook, Any]] = []
        self._has_started = False

    @property
    def provided(self) -> Mapping[Any, Any]:
        """The values for `PROVIDED` parameters."""
        return MappingProxyType(self._values)

    async def start(self) -> None:
        """Run the hooks of the start, on the running loop.

        Raises:
            HookFailed: One raised; those before it have been undone.
        """
        for hook in self._hooks.at_start:
            try:
                value = await self._begin(hook)
                if (kind := hook.provides) is not None:
                    self._values[kind] = value
            except BaseException as error:
                await self.stop()
                if isinstance(error, Exception):
                    raise HookFailed(f"the hook {hook.name} raised: {type(error).__name__}: {error}") from error
                raise
        self._has_started = True

    async def stop(self) -> None:
        """Run the hooks of the stop, and what comes after the ``yield`` of the others; twice is once.

        What one raises is logged, and the others run; so is one that takes too long.
        """
        at_stop = list(reversed(self._hooks.at_stop)) if self._has_started else []
        self._has_started = False
        try:
            async with asyncio.timeout(_STOP_S):
                for hook in at_stop:
                    await self._guarded(hook, None)
                while self._open:
                    await self._guarded(*self._open.pop())
        except TimeoutError:
            _log.error("the hooks of the stop have not ended within %g s; the rest of them does not run", _STOP_S)
        self._open.clear()

    async def _begin(self, hook: Hook) -> Any:  # noqa: ANN401 - whatever a hook provides
        called = hook.function(**self._needed(hook))
        if not hook.is_generator:
            return await called if inspect.isawaitable(called) else called
        value = await _next(called)
        if value is _END:
            raise RuntimeError("it did not yield")
        self._open.append((hook, called))
        return value

    async def _guarded(self, hook: Hook, generator: Any) -> None:  # noqa: ANN401 - of either kind
        try:
            if generator is None:
                called = hook.function(**self._needed(hook))
                if hook.is_generator:
                    raise RuntimeError("a hook of the stop cannot yield")
                if inspect.isawaitable(called):
                    await called
            elif await _next(generator) is not _END:
                raise RuntimeError("it yielded a second time")
        except Exception:  # noqa: BLE001 - another's code; the others have their own things to put in order
            _log.exception("the hook %s raised when the worker stopped", hook.name)

    def _needed(self, hook: Hook) -> dict[str, Any]:
        return {name: self._values[kind] for name, kind in provided_types(hook.name, hook.function).items()}


async def _next(generator: Any) -> Any:  # noqa: ANN401 - of either kind
    if inspect.isasyncgen(generator):
        return await anext(generator, _END)
    return next(generator, _END)
