"""Calls: the arguments of one function as bytes and back, checked against its annotations.

A payload is ``[args, kwargs]``, written as the caller wrote the call.  Arguments are
checked by decoding the very bytes that will be sent, so what was checked is what arrives.

A call without keyword arguments to a function of plain parameters is decoded by one
compiled decoder (0.4 us for two arguments); every other call goes argument by argument,
which is also how the argument at fault is found.

Invariant: what `CallCodec.encode` returns, `CallCodec.decode` accepts.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

import msgspec

from tq.app.codec import Codec, NotDecodable, NotEncodable, decode
from tq.app.lifespan import PROVIDED, resolved, spelled
from tq.core.errors import InvalidArguments, NotSerializable, UsageError

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_astuple = msgspec.structs.astuple
# In the place of a library's complaint, which may quote the value.
_WITHHELD = "the value does not fit (and is withheld: the task redacts it)"
_NoKwargs = msgspec.defstruct("_NoKwargs", [], forbid_unknown_fields=True, gc=False)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""What a function is called with: ``function(*args, **kwargs)``."""


class Signature(NamedTuple):
    """A function's parameters and the types they are annotated with (`Any` without an annotation)."""

    task: str
    """The task's name, for messages."""
    parameters: inspect.Signature
    types: dict[str, Any]
    returns: Any
    redact: frozenset[str] = frozenset()
    """The parameters, or keywords of ``**kwargs``, whose values no error may show."""


def signature_of(task: str, function: Callable[..., Any], redact: frozenset[str] = frozenset()) -> Signature:
    """Read the signature of *function*, annotations given as text resolved.

    Raises:
        UsageError: An annotation names what does not exist at run time.
    """
    hints = resolved(f"task {task!r}", function)
    written = inspect.signature(function)
    # What a worker provides is none of the caller's business.
    asked_for = [p for p in written.parameters.values() if p.default is not PROVIDED]
    # Annotations that were text are shown as what they mean.
    shown = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in asked_for]
    returns = hints.get("return", written.return_annotation)
    parameters = written.replace(parameters=shown, return_annotation=returns)
    types = {p.name: hints.get(p.name, Any) for p in asked_for}
    return Signature(task, parameters, types, hints.get("return", Any), redact)


class CallCodec:
    """The arguments and the result of one function, in one codec."""

    def __init__(self, signature: Signature, codec: Codec) -> None:
        self._signature = signature
        self._codec = codec
        self._encode = codec.encode
        self._empty_kwargs = codec.empty_kwargs
        self._decoders = {name: self._decoder(f"parameter {name!r}", kind) for name, kind in signature.types.items()}
        self._result_decoder = self._decoder("its result", signature.returns)
        self._split = codec.decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]])
        plain = [p for p in signature.parameters.parameters.values() if p.kind not in _VARIADIC]
        self._places = tuple(p.name for p in plain if p.kind in _POSITIONAL)
        self._keywords = {p.name for p in plain if p.kind is not Parameter.POSITIONAL_ONLY}
        self._required = {p.name for p in plain if p.default is Parameter.empty}
        self._positional = _positional_decoder(signature, codec)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the payload of the call ``function(*args, **kwargs)``, which is not made.

        Raises:
            InvalidArguments: They do not fit the function's parameters or annotations.
            NotSerializable: An argument has no encoding.
        """
        try:
            payload = self._codec.encode((args, kwargs))
        except NotEncodable as error:
            refusal = self._unserializable(args, kwargs, error)
            if self._signature.redact:
                # The library's own error, which would be shown as the cause, may quote the value.
                raise refusal from None
            raise refusal from error
        self.decode(payload)
        return payload

    def decode(self, payload: bytes) -> Arguments:
        """Return what to call the function with.

        Raises:
            InvalidArguments: The payload is no call, or does not fit the function.
        """
        if self._positional is not None and payload.endswith(self._empty_kwargs):
            try:
                args, _ = self._positional(payload)
            except Exception:  # noqa: BLE001  # whatever it is, the way below meets it again and says where
                return self._decode_one_by_one(payload)
            return _astuple(args), {}
        return self._decode_one_by_one(payload)

    def encode_result(self, value: Any) -> bytes:
        """Return what the function returned as bytes.

        Raises:
            NotSerializable: It has no encoding.
        """
        try:
            return self._encode(value)
        except NotEncodable as error:
            raise NotSerializable(
                f"task {self._signature.task!r}: its result, {_type_name(value)}, "
                f"cannot be encoded as {self._codec.name}: {error}"
            ) from error

    def decode_result(self, result: bytes) -> Any:
        """Return a result as the function's return annotation has it.

        Raises:
            UsageError: The handler returned something else than it is annotated with.
        """
        try:
            return decode(self._result_decoder, result)
        except NotDecodable as error:
            raise UsageError(
                f"task {self._signature.task!r} returned what its annotation "
                f"{spelled(self._signature.returns)} does not allow: {_at(error, 'result')}"
            ) from error

    def _decode_one_by_one(self, payload: bytes) -> Arguments:
        try:
            raw_args, raw_kwargs = decode(self._split, payload)
        except NotDecodable as error:
            raise InvalidArguments(
                f"task {self._signature.task!r}: its payload is not [args, kwargs] in {self._codec.name}: {error}"
            ) from error
        placed = self._places[: len(raw_args)]
        if (
            len(placed) == len(raw_args)
            and raw_kwargs.keys() <= self._keywords
            and raw_kwargs.keys().isdisjoint(placed)
            and self._required <= {*placed, *raw_kwargs}
        ):
            args = [self._argument(name, name, raw) for name, raw in zip(placed, raw_args, strict=True)]
            return tuple(args), {name: self._argument(name, name, raw) for name, raw in raw_kwargs.items()}
        # What is left goes into *args or **kwargs, or fits nowhere.
        return self._decode_bound(raw_args, raw_kwargs)

    def _decode_bound(self, raw_args: list[msgspec.Raw], raw_kwargs: dict[str, msgspec.Raw]) -> Arguments:
        try:
            bound = self._signature.parameters.bind(*raw_args, **raw_kwargs)
        except TypeError as error:
            raise InvalidArguments(
                f"task {self._signature.task!r}: {error}; its signature is {self._signature.parameters}"
            ) from None
        for name, value in bound.arguments.items():
            kind = self._signature.parameters.parameters[name].kind
            if kind is Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(
                    self._argument(f"{name}[{index}]", name, raw) for index, raw in enumerate(value)
                )
            elif kind is Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: self._argument(key, name, raw) for key, raw in value.items()}
            else:
                bound.arguments[name] = self._argument(name, name, value)
        return bound.args, bound.kwargs

    def _argument(self, shown: str, name: str, raw: msgspec.Raw) -> Any:
        try:
            return decode(self._decoders[name], raw)
        except NotDecodable as error:
            what = f"task {self._signature.task!r}: argument {shown!r} ({spelled(self._signature.types[name])})"
            if {name, shown} & self._signature.redact:
                raise InvalidArguments(f"{what}: {_WITHHELD}") from None
            raise InvalidArguments(f"{what}: {_at(error, shown)}") from error

    def _unserializable(self, args: Sequence[Any], kwargs: Mapping[str, Any], whole: NotEncodable) -> NotSerializable:
        """Return the error that names the first argument without an encoding."""
        names = list(self._signature.parameters.parameters)
        named = [(names[i] if i < len(names) else f"number {i + 1}", value) for i, value in enumerate(args)]
        for name, value in [*named, *kwargs.items()]:
            try:
                self._codec.encode(value)
            except NotEncodable as error:
                why = _WITHHELD if name in self._signature.redact else error
                return NotSerializable(
                    f"task {self._signature.task!r}: argument {name!r}, {_type_name(value)}, "
                    f"cannot be encoded as {self._codec.name}: {why}"
                )
        return NotSerializable(
            f"task {self._signature.task!r}: its arguments cannot be encoded as {self._codec.name}: {whole}"
        )

    def _decoder(self, what: str, kind: Any) -> Callable[[bytes], Any]:
        try:
            return self._codec.decoder(kind)
        except TypeError as error:
            raise UsageError(
                f"task {self._signature.task!r}: {what} is annotated {spelled(kind)}, "
                f"which {self._codec.name} cannot be decoded to: {error}"
            ) from error


def _positional_decoder(signature: Signature, codec: Codec) -> Callable[[bytes], Any] | None:
    """Return the decoder of ``[args, {}]`` into (a Struct of all positional arguments, nothing).

    None where such a call cannot be decoded so: with ``*args``, or if a keyword is required.
    """
    fields: list[Any] = []
    for name, parameter in signature.parameters.parameters.items():
        if parameter.kind in _POSITIONAL:
            kind = signature.types[name]
            required = parameter.default is Parameter.empty
            fields.append((f"a{len(fields)}", kind, *(() if required else (_default(parameter.default),))))
        elif parameter.kind is Parameter.VAR_POSITIONAL or (
            parameter.kind is Parameter.KEYWORD_ONLY and parameter.default is Parameter.empty
        ):
            return None
    arguments = msgspec.defstruct("Arguments", fields, array_like=True, forbid_unknown_fields=True, gc=False)
    return codec.decoder(tuple[arguments, _NoKwargs])  # type: ignore[valid-type]  # made at run time


def _default(value: Any) -> Any:
    # A factory, because msgspec copies or refuses a mutable default, where Python passes the one object.
    return msgspec.field(default_factory=lambda: value)


def _at(error: NotDecodable, name: str) -> str:
    """Return the complaint with the path inside the value spelled from the value's name."""
    text = str(error)
    text = text[:1].lower() + text[1:]
    return text if error.path == "$" else f"{text} at {name}{error.path[1:]}"


def _type_name(value: Any) -> str:
    return f"of type {type(value).__qualname__}"
