"""A contract over gRPC: a Protocol whose methods are the rpcs of a .proto service, served and called without a line per method.

An rpc ``LoadCheckpoint`` is the method ``load_checkpoint``; the fields of its request are the method's parameters after ``principal``, by name. Its
reply is the message of the struct that the method returns, or has ``values`` (a sequence) or ``value`` (what may be None, or has no message). A method
that returns an async iterator is a stream. ``methods`` refuses a service and a Protocol that do not agree, so a drift is found at the first import.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import msgspec
from google.protobuf import message_factory

from appliance.kit import grpc as wire
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from appliance.kit.struct_messages import REQUIRED, allows_none, fill, put, struct_of, take, without_none

Authenticate = Callable[[str], Awaitable[Any]]
"""Bearer → principal; raises ``unauthenticated``."""
BearerOf = Callable[[Any], str]
"""Principal → the bearer that stands for it."""
CALL_SECONDS: Final = 30.0
_ASK_AGAIN_SECONDS: Final = 1.0
_WAITS: Final = ("timeout_seconds", "wait_seconds")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc.

    Attributes:
        path: ``/package.Service/Name``.
        parameters: name → (type, default or REQUIRED), in order.
        returns: what the method returns, or what its iterator yields.
    """

    name: str
    path: str
    request: Any
    reply: Any
    parameters: Mapping[str, tuple[Any, Any]]
    returns: Any
    streams: bool

    def arguments(self, request: Any) -> dict[str, Any]:
        """The parameters that a request carries; raises ``invalid_request``."""
        return {name: take(request, name, kind, default) for name, (kind, default) in self.parameters.items()}

    def reply_of(self, value: Any) -> Any:
        """The message for what the method returned."""
        reply = self.reply()
        if _is_struct(self.returns):
            fill(reply, value)
        elif self.returns is not type(None):
            put(reply, _field(self.returns), value)
        return reply

    def value_of(self, reply: Any) -> Any:
        """What the method on the other side returned."""
        if _is_struct(self.returns):
            return struct_of(reply, self.returns)
        return None if self.returns is type(None) else take(reply, _field(self.returns), self.returns)


def methods(service: Any, protocol: type) -> Mapping[str, Method]:
    """The rpcs of a service descriptor by method name; TypeError when they are not those of ``protocol``."""
    found = {re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).lower(): rpc for rpc in service.methods}
    declared = {name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")}
    if found.keys() != declared:
        raise TypeError(f"{service.full_name} and {protocol.__name__} differ in {sorted(found.keys() ^ declared)}")
    return {name: _method(service, rpc, name, getattr(protocol, name)) for name, rpc in found.items()}


def handler(service: Any, protocol: type, implementation: object, authenticate: Authenticate) -> Any:
    """Serves ``implementation`` of ``protocol``: for ``server.add_generic_rpc_handlers((…,))``."""
    handlers = {}
    for name, method in methods(service, protocol).items():
        call = getattr(implementation, name)
        make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        serve = _streaming(method, call, authenticate) if method.streams else _unary(method, call, authenticate)
        handlers[method.path.rpartition("/")[2]] = make(serve, request_deserializer=method.request.FromString, response_serializer=_serialised)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


class Remote:
    """Calls a service. ``bearer_of`` names the caller of each call; a deadline of the request being served here holds for it too.

    ``call_seconds`` is the longest that one call may take, beside what it was asked to wait.
    """

    def __init__(self, channel: Any, service: Any, protocol: type, bearer_of: BearerOf, call_seconds: float = CALL_SECONDS) -> None:
        self._call_seconds = call_seconds
        self._methods = methods(service, protocol)
        self._bearer_of = bearer_of
        self._stubs = {name: _stub(channel, method) for name, method in self._methods.items()}

    async def call(self, name: str, principal: Any, /, **arguments: Any) -> Any:
        """One call; raises the ApplianceError of the other side, ``unavailable``, ``upstream_timeout``."""
        method = self._methods[name]
        waits = sum(float(arguments.get(wait) or 0.0) for wait in _WAITS)
        timeout = wire.seconds_left(self._call_seconds + waits)
        try:
            reply = await self._stubs[name](_request(method, arguments), timeout=timeout, metadata=self._metadata(principal))
        except grpc.aio.AioRpcError as failure:
            raise wire.error_of(failure) from failure
        return method.value_of(reply)

    async def stream(self, name: str, principal: Any, /, **arguments: Any) -> AsyncIterator[Any]:
        """A stream of replies; closing the iterator ends it."""
        method = self._methods[name]
        stream = self._stubs[name](_request(method, arguments), metadata=self._metadata(principal))
        try:
            async for reply in stream:
                yield method.value_of(reply)
        except grpc.aio.AioRpcError as failure:
            raise wire.error_of(failure) from failure
        finally:
            stream.cancel()

    def _metadata(self, principal: Any) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._bearer_of(principal)}"),)


def _unary(method: Method, call: Callable[..., Awaitable[Any]], authenticate: Authenticate) -> Callable[[Any, Any], Awaitable[Any]]:
    async def serve(request: Any, context: Any) -> Any:
        try:
            async with _deadline(context):
                principal = await authenticate(wire.bearer_of(context))
                return method.reply_of(await call(principal, **method.arguments(request)))
        except Exception as error:
            await wire.abort(context, _told(error, method))

    return serve


def _streaming(method: Method, call: Callable[..., AsyncIterator[Any]], authenticate: Authenticate) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            bearer = wire.bearer_of(context)
            principal, asked_at = await authenticate(bearer), time.monotonic()
            async for value in call(principal, **method.arguments(request)):
                if time.monotonic() - asked_at >= _ASK_AGAIN_SECONDS:  # who was revoked gets nothing more, nor who lost a space or a role
                    if await authenticate(bearer) != principal:
                        raise ApplianceError("unavailable", "the caller's rights have changed", hint="take the stream up again after its last value")
                    asked_at = time.monotonic()
                yield method.reply_of(value)
        except Exception as error:
            await wire.abort(context, _told(error, method))

    return serve


def _deadline(context: Any) -> asyncio.Timeout:
    """Until when the caller waits, for this call and for those that are made for it."""
    left = context.time_remaining()
    if left is None:
        return asyncio.timeout(None)
    wire.deadline.set(time.monotonic() + left)
    return asyncio.timeout(left)


def _told(error: Exception, method: Method) -> ApplianceError:
    """Boundary: whatever went wrong is answered; what is not ours is logged, and told without its text."""
    if isinstance(error, ApplianceError):
        return error
    if isinstance(error, TimeoutError):
        return ApplianceError("upstream_timeout", f"{method.name} took longer than the caller waits", hint="allow more time")
    _log.exception("rpc_failed", method=method.path)
    return ApplianceError("internal", "the call failed inside the box", hint="see the log of the service; this is a defect")


def _method(service: Any, rpc: Any, name: str, function: Callable[..., Any]) -> Method:
    hints = typing.get_type_hints(function)
    signature = list(inspect.signature(function).parameters.values())[2:]
    parameters = {one.name: (hints[one.name], REQUIRED if one.default is inspect.Parameter.empty else one.default) for one in signature}
    request = message_factory.GetMessageClass(rpc.input_type)
    if list(parameters) != [field.name for field in rpc.input_type.fields]:
        raise TypeError(f"{service.full_name}.{rpc.name}: the request's fields are not the parameters {list(parameters)}")
    returns = hints["return"]
    streams = typing.get_origin(returns) is AsyncIterator
    path = f"/{service.full_name}/{rpc.name}"
    reply = message_factory.GetMessageClass(rpc.output_type)
    return Method(name, path, request, reply, parameters, typing.get_args(returns)[0] if streams else returns, streams)


def _stub(channel: Any, method: Method) -> Any:
    make = channel.unary_stream if method.streams else channel.unary_unary
    return make(method.path, request_serializer=_serialised, response_deserializer=method.reply.FromString)


def _request(method: Method, arguments: Mapping[str, Any]) -> Any:
    request = method.request()
    for name, value in arguments.items():
        put(request, name, value)
    return request


def _serialised(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _field(returns: Any) -> str:
    return "values" if typing.get_origin(without_none(returns)) is Sequence else "value"


def _is_struct(kind: Any) -> bool:
    return not allows_none(kind) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
